//! Relu.

use crate::error::Result;
use crate::ops::rules::{is_f32, same_as};
use crate::ops::spec::{ChannelRole, InferContext, Inferred, OpSpec, QuantRole, Schema, op};

/// `max(x, 0)`.
pub struct Relu;

impl OpSpec for Relu {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Relu", &[1, 6, 13, 14])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        same_as(cx, 0)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if is_f32(cx, 0) { QuantRole::Activation { low: Some(0.0), high: None } } else { QuantRole::Opaque }
    }

    fn channels(&self, _cx: &InferContext, axis: usize) -> ChannelRole {
        ChannelRole::same(axis)
    }
}
