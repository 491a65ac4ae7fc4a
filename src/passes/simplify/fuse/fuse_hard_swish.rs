//! The formulas of HardSwish become HardSwish.

use super::matching::{Look, near, replace_node};
use super::product::Product;
use crate::error::Result;
use crate::ir::{DType, Graph, NodeId, ValueId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `y = x * HardSigmoid<alpha = 1/6, beta = 0.5>(x)`, or `y = x * Clip(x + 3, 0, 6) / 6` in any order of
/// multiplications. After: `y = HardSwish(x)`.
///
/// When: opset 14 (bfloat16: 22). The constants have one element, are those numbers up to rounding, and add no axis. Every
/// value between has no other use and is no graph output.
/// Why it is equal: the specification defines HardSwish as the first, and `HardSigmoid(x) = max(0, min(1, x / 6 + 0.5))`.
pub struct FuseHardSwish;

impl Rewrite for FuseHardSwish {
    fn name(&self) -> &'static str {
        "fuse_hard_swish"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("Mul"), onnx("Div")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        Ok(apply(Look::new(graph, cx), id))
    }
}

fn apply(look: Look, id: NodeId) -> Option<Patch> {
    let product = Product::of_node(look, id)?;
    let swish = |&(x, gate): &(ValueId, ValueId)| {
        let plain = product.is_scaled_by(look, x, 1.0) && is_hard_sigmoid(look, gate, x);
        plain || (product.is_scaled_by(look, x, 1.0 / 6.0) && is_relu6_of_x_plus_3(look, gate, x))
    };
    let (x, _) = product.pairs().into_iter().find(swish)?;
    // ONNX Runtime has HardSwish for these types only.
    (look.cx.opset >= 14 && matches!(look.elem(x)?, DType::F32 | DType::F16)).then_some(())?;
    let mut patch = Patch::default();
    replace_node(look.graph, &mut patch, id, "HardSwish", &[], &[Some(x.into())])?;
    Some(patch)
}

fn is_hard_sigmoid(look: Look, v: ValueId, x: ValueId) -> bool {
    let Some(id) = look.inner(v, "HardSigmoid") else { return false };
    let node = look.graph.node(id);
    let number = |name: &str, default| f64::from(node.float(name).unwrap_or(default));
    look.graph.input(id, 0) == Some(x)
        && near(number("alpha", 0.2), 1.0 / 6.0, DType::F32)
        && number("beta", 0.5) == 0.5
}

/// Whether `v` is `min(max(x + 3, 0), 6)`.
fn is_relu6_of_x_plus_3(look: Look, v: ValueId, x: ValueId) -> bool {
    let Some(clip) = look.inner(v, "Clip") else { return false };
    let bound = |slot| Some(look.scalar(look.graph.input(clip, slot)?)?.value);
    if (bound(1), bound(2)) != (Some(0.0), Some(6.0)) {
        return false;
    }
    let sum = look.graph.input(clip, 0).and_then(|s| look.inner(s, "Add"));
    sum.and_then(|id| look.beside(id, 3.0)) == Some(x)
}
