//! SplitToSequence.

use crate::error::Result;
use crate::ir::Dim;
use crate::ops::rules::{axis, int, sequence_of, tensor_type};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Cuts a tensor into a sequence of pieces along an axis.
pub struct SplitToSequence;

impl OpSpec for SplitToSequence {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("SplitToSequence", &[11, 24])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let Some(shape) = cx.shape(0) else { return Ok(vec![sequence_of(tensor_type(cx.elem(0), None))]) };
        let at = axis(int(cx, "axis", 0)?, shape.len())?;
        let mut piece = shape.to_vec();
        if !cx.present(1) && int(cx, "keepdims", 1)? == 0 {
            piece.remove(at);
        } else {
            piece[at] = Dim::Unknown;
        }
        Ok(vec![sequence_of(tensor_type(cx.elem(0), Some(piece)))])
    }
}
