//! TfIdfVectorizer.

use crate::error::Result;
use crate::ir::{DType, Dim};
use crate::ops::rules::{ints, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Counts n-grams: as many numbers per row as the pool has.
pub struct TfIdfVectorizer;

impl OpSpec for TfIdfVectorizer {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("TfIdfVectorizer", &[9]).no_f16()] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let width = match ints(cx, "ngram_indexes")?.map(|v| v.iter().max()) {
            Some(Some(n)) if *n >= 0 => n.checked_add(1).map_or(Dim::Unknown, Dim::Known),
            _ => Dim::Unknown,
        };
        let shape = |s: &[Dim]| match s {
            [rows @ .., _] => [rows, std::slice::from_ref(&width)].concat(),
            [] => vec![width.clone()],
        };
        output(Some(DType::F32), cx.shape(0).map(shape))
    }
}
