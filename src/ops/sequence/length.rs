//! SequenceLength.

use crate::error::Result;
use crate::ir::DType;
use crate::ops::rules::output;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// How many elements a sequence has.
pub struct SequenceLength;

impl OpSpec for SequenceLength {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("SequenceLength", &[11])] }
    }

    fn infer(&self, _cx: &InferContext) -> Result<Vec<Inferred>> {
        output(Some(DType::I64), Some(vec![]))
    }
}
