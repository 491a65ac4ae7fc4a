//! If, Loop and Scan. Their outputs are whatever their bodies make, which inference does not follow.

use crate::ops::spec::{InferContext, OpSpec, Schema, Upgrade, op};

/// Nodes with bodies.
pub struct Bodies;

impl OpSpec for Bodies {
    fn schemas(&self) -> &'static [Schema] {
        &const {
            [
                op("If", &[1, 11, 13, 16, 19, 21, 23, 24, 25]),
                op("Loop", &[1, 11, 13, 16, 19, 21, 23, 24, 25]),
                op("Scan", &[8, 9, 11, 16, 19, 21, 23, 24, 25]),
            ]
        }
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
