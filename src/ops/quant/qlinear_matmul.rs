//! QLinearMatMul.

use crate::error::Result;
use crate::ir::Type;
use crate::ops::math::matmul::{matmul_macs, matmul_shape};
use crate::ops::rules::output;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Inputs a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point.
pub struct QLinearMatMul;

impl OpSpec for QLinearMatMul {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("QLinearMatMul", &[10, 21]).no_f16()] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(cx.elem(7), matmul_shape(cx, 0, 3)?)
    }

    fn macs(&self, cx: &InferContext, outputs: &[Option<&Type>]) -> Option<u64> {
        matmul_macs(cx, 0, 3, outputs)
    }
}
