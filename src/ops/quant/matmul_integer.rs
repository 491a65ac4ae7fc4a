//! MatMulInteger.

use crate::error::Result;
use crate::ir::{DType, Type};
use crate::ops::math::matmul::{matmul_macs, matmul_shape};
use crate::ops::rules::output;
use crate::ops::spec::{InferContext, Inferred, OpKey, OpSpec, onnx};

/// Matrix product of 8-bit tensors with int32 results.
pub struct MatMulInteger;

impl OpSpec for MatMulInteger {
    fn keys(&self) -> &'static [OpKey] {
        &const { [onnx("MatMulInteger")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(Some(DType::I32), matmul_shape(cx, 0, 1)?)
    }

    fn macs(&self, cx: &InferContext, outputs: &[Option<&Type>]) -> Option<u64> {
        matmul_macs(cx, 0, 1, outputs)
    }
}
