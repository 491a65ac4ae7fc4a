//! FusedConv of ONNX Runtime: Conv, a residual and an activation.

use crate::error::Result;
use crate::ops::rules::output;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, contrib};
use crate::ops::window::conv_shape;

/// Inputs X, W, B, Z.
pub struct FusedConv;

impl OpSpec for FusedConv {
    fn schemas(&self) -> &'static [Schema] {
        &const { [contrib("FusedConv")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(cx.elem(0), conv_shape(cx, 0, 1)?)
    }
}
