//! StringNormalizer.

use crate::error::Result;
use crate::ir::{DType, Dim};
use crate::ops::rules::output;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Changes case and drops stop words, so that any number of strings may be left.
pub struct StringNormalizer;

impl OpSpec for StringNormalizer {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("StringNormalizer", &[10])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let drops = cx.node.attribute("stopwords").is_some();
        let kept = |s: &[Dim]| match s {
            [rows @ .., last] => [rows, &[if drops { Dim::Unknown } else { last.clone() }]].concat(),
            [] => vec![],
        };
        output(Some(DType::String), cx.shape(0).map(kept))
    }
}
