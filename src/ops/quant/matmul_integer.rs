//! MatMulInteger.

use crate::error::Result;
use crate::ir::{DType, Type};
use crate::ops::math::matmul::{matmul_macs, matmul_shape};
use crate::ops::rules::output;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Matrix product of 8-bit tensors with int32 results.
pub struct MatMulInteger;

impl OpSpec for MatMulInteger {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("MatMulInteger", &[10])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(Some(DType::I32), matmul_shape(cx, 0, 1)?)
    }

    fn macs(&self, cx: &InferContext, outputs: &[Option<&Type>]) -> Option<u64> {
        matmul_macs(cx, 0, 1, outputs)
    }
}
