//! DeformConv.

use crate::error::Result;
use crate::ir::Type;
use crate::ops::nn::conv::conv_macs;
use crate::ops::rules::output;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};
use crate::ops::window::conv_shape;

/// Convolution that samples at learned offsets.
pub struct DeformConv;

impl OpSpec for DeformConv {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("DeformConv", &[19, 22])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        // The mapping from sizes to sizes is that of a convolution.
        output(cx.elem(0), conv_shape(cx, 0, 1)?)
    }

    fn macs(&self, cx: &InferContext, outputs: &[Option<&Type>]) -> Option<u64> {
        conv_macs(cx, 1, outputs)
    }
}
