//! Normalizations whose only output has the input's type.

use crate::error::Result;
use crate::ops::rules::same_as;
use crate::ops::spec::{InferContext, Inferred, OpKey, OpSpec, Upgrade, onnx};

/// InstanceNormalization, GroupNormalization, LRN and relatives.
pub struct Norm;

impl OpSpec for Norm {
    fn keys(&self) -> &'static [OpKey] {
        &const {
            [
                onnx("InstanceNormalization"),
                onnx("GroupNormalization"),
                onnx("RMSNormalization"),
                onnx("MeanVarianceNormalization"),
                onnx("LpNormalization"),
                onnx("LRN"),
            ]
        }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        same_as(cx, 0)
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        if &*cx.node.op.op_type == "GroupNormalization" && cx.opset < 21 && to >= 21 {
            return Upgrade::Impossible("its scale is per group before operator set 21, per channel as of it".into());
        }
        Upgrade::Same
    }
}
