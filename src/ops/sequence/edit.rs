//! SequenceInsert and SequenceErase.

use crate::error::Result;
use crate::ops::rules::{any_element, sequence_of};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// A sequence with one element more or less.
pub struct SequenceEdit;

impl OpSpec for SequenceEdit {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("SequenceInsert", &[11]), op("SequenceErase", &[11])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        Ok(vec![sequence_of(any_element(cx, 0))])
    }
}
