//! QLinearConv.

use crate::error::Result;
use crate::ir::Type;
use crate::ops::nn::conv::conv_macs;
use crate::ops::rules::output;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};
use crate::ops::window::conv_shape;

/// Inputs x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, B.
pub struct QLinearConv;

impl OpSpec for QLinearConv {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("QLinearConv", &[10]).no_f16()] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(cx.elem(7), conv_shape(cx, 0, 3)?)
    }

    fn macs(&self, cx: &InferContext, outputs: &[Option<&Type>]) -> Option<u64> {
        conv_macs(cx, 3, outputs)
    }
}
