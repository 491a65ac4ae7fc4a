//! ONNX Runtime's fused activations.

use crate::error::Result;
use crate::ops::axes::{AxisLinks, LinkContext, broadcast_links};
use crate::ops::rules::same_as;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, contrib};

/// The output has the first input's type.
pub struct Activation;

impl OpSpec for Activation {
    fn schemas(&self) -> &'static [Schema] {
        &const { [contrib("Gelu"), contrib("FastGelu"), contrib("BiasGelu"), contrib("QuickGelu")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        same_as(cx, 0)
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        broadcast_links(cx, 0..cx.cx.inputs.len())
    }
}
