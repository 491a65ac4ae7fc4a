//! Operators that change some elements, or accumulate along an axis, and keep the first input's type: scatters, running
//! sums and products, triangles, reversed sequences.

use crate::error::Result;
use crate::ir::OpId;
use crate::ops::axes::{AxisLinks, LinkContext};
use crate::ops::rules::{axis, same_as};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, Upgrade, op};

/// Output 0 has the type of input 0.
pub struct InPlace;

impl OpSpec for InPlace {
    fn schemas(&self) -> &'static [Schema] {
        &const {
            [
                op("Scatter", &[9, 11]),
                op("ScatterElements", &[11, 13, 16, 18]),
                op("ScatterND", &[11, 13, 16, 18]),
                op("CumSum", &[11, 14]).f16(14),
                op("CumProd", &[26]),
                op("Trilu", &[14]),
                op("TensorScatter", &[24]),
                op("ReverseSequence", &[10]),
            ]
        }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        same_as(cx, 0)
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        // Operator set 11 renamed it, and allows negative indices too.
        if cx.opset >= 11 || to < 11 || &*cx.node.op.op_type != "Scatter" {
            return Upgrade::Same;
        }
        let mut node = cx.node.clone();
        node.op = OpId::onnx("ScatterElements");
        Upgrade::Changed { node: Box::new(node), new_inputs: vec![] }
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let rank = cx.rank(0)?;
        let tied: Vec<usize> = match &*cx.cx.node.op.op_type {
            "CumSum" | "CumProd" => vec![axis(cx.cx.constant(1)?.scalar_i64()?, rank).ok()?],
            "Trilu" => (rank.checked_sub(2)?..rank).collect(),
            _ => return None,
        };
        let mut links = AxisLinks::default();
        links.same_rest(0, 0, (0..rank).filter(|k| !tied.contains(k)));
        Some(links)
    }
}
