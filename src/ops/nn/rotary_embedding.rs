//! RotaryEmbedding, of the standard and of ONNX Runtime.

use crate::error::Result;
use crate::ops::rules::same_as;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, contrib, op};

/// Rotates pairs of channels by angles that depend on the position.
pub struct RotaryEmbedding;

impl OpSpec for RotaryEmbedding {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("RotaryEmbedding", &[23]), contrib("RotaryEmbedding")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        same_as(cx, 0)
    }
}
