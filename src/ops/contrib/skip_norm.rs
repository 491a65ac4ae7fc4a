//! ONNX Runtime's layer normalizations with a residual, and the one without a mean.

use crate::error::Result;
use crate::ir::Dim;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, contrib, op};

/// The first output has the first input's type, and so has the sum in slot 3.
pub struct SkipNorm;

impl OpSpec for SkipNorm {
    fn schemas(&self) -> &'static [Schema] {
        &const {
            [
                contrib("SkipLayerNormalization"),
                contrib("SkipSimplifiedLayerNormalization"),
                op("SimplifiedLayerNormalization", &[1]),
            ]
        }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let like = Inferred::tensor(cx.elem(0), cx.shape(0).map(<[Dim]>::to_vec));
        if cx.node.op.domain.is_empty() {
            return Ok(vec![like]);
        }
        Ok(vec![like.clone(), Inferred::default(), Inferred::default(), like])
    }
}
