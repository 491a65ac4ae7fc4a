//! If, Loop and Scan. Their outputs are whatever their bodies make, which inference does not follow.

use crate::ops::spec::{InferContext, OpKey, OpSpec, Upgrade, onnx};

/// Nodes with bodies.
pub struct Bodies;

impl OpSpec for Bodies {
    fn keys(&self) -> &'static [OpKey] {
        &const { [onnx("If"), onnx("Loop"), onnx("Scan")] }
    }

    fn upgrade(&self, cx: &InferContext, _to: i64) -> Upgrade {
        if cx.opset < 9 && &*cx.node.op.op_type == "Scan" {
            return Upgrade::Impossible("its form before operator set 9 is not supported".into());
        }
        Upgrade::Same
    }

    /// A body may hold random operators.
    fn deterministic(&self) -> bool {
        false
    }
}
