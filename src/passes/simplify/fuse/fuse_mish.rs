//! The formula of Mish becomes Mish.

use super::matching::{Look, replace_node};
use crate::error::Result;
use crate::ir::{DType, Graph, NodeId, ValueId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `y = x * Tanh(Softplus(x))`. After: `y = Mish(x)`.
///
/// When: opset 18 (bfloat16: 22). Both values between have no other use and are no graph outputs.
/// Why it is equal: the specification defines Mish so.
pub struct FuseMish;

impl Rewrite for FuseMish {
    fn name(&self) -> &'static str {
        "fuse_mish"
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
    let gated = |&(x, gate): &(ValueId, ValueId)| {
        let tanh = look.inner(gate, "Tanh")?;
        let softplus = look.inner(look.graph.input(tanh, 0)?, "Softplus")?;
        (look.graph.input(softplus, 0)? == x).then_some(x)
    };
    let x = look.either_way(id).iter().flatten().find_map(gated)?;
    let bf16 = look.elem(x)? == DType::BF16;
    (look.cx.opset >= if bf16 { 22 } else { 18 }).then_some(())?;
    let mut patch = Patch::default();
    replace_node(look.graph, &mut patch, id, "Mish", &[], &[Some(x.into())])?;
    Some(patch)
}
