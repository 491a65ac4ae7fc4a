//! Operator sets that define operators of the default domain which have no file of their own yet, from the schemas of
//! onnx 1.23 up to operator set 26. Some redefinitions only add element types; without a file nobody has checked.

/// (operator, operator sets that define it)
const TABLE: &[(&str, &[i64])] = &[
    ("AffineGrid", &[20]),
    ("Attention", &[23, 24, 25]),
    ("Bernoulli", &[15, 22]),
    ("BitCast", &[26]),
    ("BlackmanWindow", &[17]),
    ("CenterCropPad", &[18]),
    ("Col2Im", &[18]),
    ("Compress", &[9, 11]),
    ("ConcatFromSequence", &[11]),
    ("DFT", &[17, 20]),
    ("DeformConv", &[19, 22]),
    ("Det", &[11, 22]),
    ("EyeLike", &[9, 22]),
    ("GridSample", &[16, 20, 22]),
    ("HammingWindow", &[17]),
    ("HannWindow", &[17]),
    ("ImageDecoder", &[20]),
    ("MaxRoiPool", &[1, 22]),
    ("MaxUnpool", &[9, 11, 22]),
    ("MelWeightMatrix", &[17]),
    ("Multinomial", &[7, 22]),
    ("NegativeLogLikelihoodLoss", &[12, 13, 22]),
    ("NonMaxSuppression", &[10, 11]),
    ("Optional", &[15]),
    ("OptionalGetElement", &[15, 18]),
    ("OptionalHasElement", &[15, 18]),
    ("RandomNormal", &[1, 22]),
    ("RandomNormalLike", &[1, 22]),
    ("RandomUniform", &[1, 22]),
    ("RandomUniformLike", &[1, 22]),
    ("RegexFullMatch", &[20]),
    ("RoiAlign", &[10, 16, 22]),
    ("RotaryEmbedding", &[23]),
    ("STFT", &[17]),
    ("SequenceAt", &[11]),
    ("SequenceConstruct", &[11]),
    ("SequenceEmpty", &[11]),
    ("SequenceErase", &[11]),
    ("SequenceInsert", &[11]),
    ("SequenceLength", &[11]),
    ("SequenceMap", &[17]),
    ("SoftmaxCrossEntropyLoss", &[12, 13]),
    ("SplitToSequence", &[11, 24]),
    ("StringConcat", &[20]),
    ("StringNormalizer", &[10]),
    ("StringSplit", &[20]),
    ("TensorScatter", &[24]),
    ("TfIdfVectorizer", &[9]),
    ("Unique", &[11]),
];

/// The operator sets that define (or redefine) this operator; `None` if it is not in the table.
pub fn redefined(op_type: &str) -> Option<&'static [i64]> {
    let found = TABLE.binary_search_by(|row| row.0.cmp(op_type));
    found.ok().map(|k| TABLE[k].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_without_a_file() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
        for (op, _) in TABLE {
            assert!(crate::ops::spec(&crate::ir::OpId::onnx(op)).is_none(), "{op} has a file");
        }
        assert_eq!(redefined("Det"), Some(&[11, 22][..]));
    }
}
