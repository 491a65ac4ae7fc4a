//! SequenceEmpty.

use crate::error::Result;
use crate::ir::DType;
use crate::ops::rules::{elem_attribute, sequence_of, tensor_type};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// A sequence without elements.
pub struct SequenceEmpty;

impl OpSpec for SequenceEmpty {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("SequenceEmpty", &[11])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let elem = elem_attribute(cx, "dtype")?.unwrap_or(DType::F32);
        Ok(vec![sequence_of(tensor_type(Some(elem), None))])
    }
}
