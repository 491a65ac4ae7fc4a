//! SequenceConstruct.

use crate::error::Result;
use crate::ops::rules::{sequence_of, tensor_type};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// A sequence of its inputs.
pub struct SequenceConstruct;

impl OpSpec for SequenceConstruct {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("SequenceConstruct", &[11])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let Some(first) = cx.tensor(0) else { return Ok(vec![]) };
        let equal = (1..cx.inputs.len()).all(|k| cx.shape(k) == cx.shape(0));
        let shape = first.shape.clone().filter(|_| equal);
        Ok(vec![sequence_of(tensor_type(Some(first.elem), shape))])
    }
}
