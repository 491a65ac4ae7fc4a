//! Expand.

use crate::error::Result;
use crate::ir::Dim;
use crate::ops::rules::{broadcast, is_f32, output, requested_shape};
use crate::ops::spec::{InferContext, Inferred, OpSpec, QuantRole, Schema, op};

/// Broadcasts a tensor and a requested shape.
pub struct Expand;

impl OpSpec for Expand {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Expand", &[8, 13])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let shape: Option<Vec<Dim>> = match (cx.shape(0), requested_shape(cx, 1)?) {
            (Some(shape), Some(requested)) => Some(broadcast(shape, &requested)?),
            _ => None,
        };
        output(cx.elem(0), shape)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if is_f32(cx, 0) { QuantRole::PassThrough { input: 0 } } else { QuantRole::Opaque }
    }
}
