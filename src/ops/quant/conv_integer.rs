//! ConvInteger.

use crate::error::Result;
use crate::ir::{DType, Type};
use crate::ops::nn::conv::conv_macs;
use crate::ops::rules::output;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};
use crate::ops::window::conv_shape;

/// Convolution of 8-bit tensors with int32 results.
pub struct ConvInteger;

impl OpSpec for ConvInteger {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("ConvInteger", &[10])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(Some(DType::I32), conv_shape(cx, 0, 1)?)
    }

    fn macs(&self, cx: &InferContext, outputs: &[Option<&Type>]) -> Option<u64> {
        conv_macs(cx, 1, outputs)
    }
}
