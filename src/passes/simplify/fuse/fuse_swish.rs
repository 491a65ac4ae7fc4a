//! The formula of Swish becomes Swish.

use super::matching::{Look, replace_node};
use super::product::Product;
use crate::error::Result;
use crate::ir::{AttributeValue, Graph, NodeId, ValueId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `y = x * Sigmoid(a * x)`. After: `y = Swish<alpha = a>(x)`.
///
/// When: opset 24. `a` is a constant of one element that adds no axis, or absent (1). Every value between has no other use
/// and is no graph output.
/// Why it is equal: the specification defines Swish so.
pub struct FuseSwish;

impl Rewrite for FuseSwish {
    fn name(&self) -> &'static str {
        "fuse_swish"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("Mul")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        Ok(apply(Look::new(graph, cx), id))
    }
}

fn apply(look: Look, id: NodeId) -> Option<Patch> {
    if look.cx.opset < 24 {
        return None;
    }
    let gated = |&(x, gate): &(ValueId, ValueId)| {
        let sigmoid = look.inner(gate, "Sigmoid")?;
        let argument = Product::of_value(look, look.graph.input(sigmoid, 0)?)?;
        let scaled = argument.terms == [x] && argument.is_scaled_by(look, x, argument.factor);
        scaled.then_some((x, argument.factor))
    };
    let (x, alpha) = look.either_way(id).iter().flatten().find_map(gated)?;
    let alpha = Some(alpha as f32).filter(|a| a.is_finite())?;
    let attributes = [("alpha", AttributeValue::Float(alpha))];
    let mut patch = Patch::default();
    replace_node(look.graph, &mut patch, id, "Swish", &attributes[usize::from(alpha == 1.0)..], &[Some(x.into())])?;
    Some(patch)
}
