//! QGemm of ONNX Runtime.

use crate::error::Result;
use crate::ir::{DType, Type};
use crate::ops::math::gemm::{gemm_macs, gemm_shape};
use crate::ops::rules::output;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, contrib};

/// Inputs A, a_scale, a_zero_point, B, b_scale, b_zero_point, C, y_scale, y_zero_point; without the last two it makes
/// f32.
pub struct QGemm;

impl OpSpec for QGemm {
    fn schemas(&self) -> &'static [Schema] {
        &const { [contrib("QGemm")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let elem = if cx.present(8) { cx.elem(8) } else { Some(DType::F32) };
        output(elem, gemm_shape(cx, 0, 3)?)
    }

    fn macs(&self, cx: &InferContext, outputs: &[Option<&Type>]) -> Option<u64> {
        gemm_macs(cx, 0, 3, outputs)
    }
}
