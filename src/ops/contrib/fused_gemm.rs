//! FusedGemm of ONNX Runtime: Gemm and an activation.

use crate::error::Result;
use crate::ops::math::gemm::gemm_shape;
use crate::ops::rules::output;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, contrib};

/// `activation(alpha * A' * B' + beta * C)`.
pub struct FusedGemm;

impl OpSpec for FusedGemm {
    fn schemas(&self) -> &'static [Schema] {
        &const { [contrib("FusedGemm")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(cx.elem(0), gemm_shape(cx, 0, 1)?)
    }
}
