//! Float constants stored in half their size.

use super::retype::converted;
use crate::error::Result;
use crate::ir::{DType, Graph, Node, OpId, Tensor};
use crate::passes::{Effect, GraphRewrite, Patch, RuleContext};

const NAME: &str = "store_floats";

/// Smaller constants are left: a Cast takes more room than it saves.
const FEWEST: usize = 64;

/// Before: an f32 constant `w`. After: `w = Cast(w_f16)`, computed as before.
///
/// When: it has at least 64 elements; where the store must be exact, when every element is one of the smaller type's; else
/// when none overflows it. Bodies included.
/// Loss: none, or one rounding of each weight; nothing of what is computed.
pub struct StoreFloats {
    /// The smaller type: f16 or bf16.
    pub to: DType,
    /// Only what loses nothing.
    pub exact: bool,
}

impl GraphRewrite for StoreFloats {
    fn name(&self) -> &'static str {
        NAME
    }

    fn effect(&self) -> Effect {
        if self.exact { Effect::Exact } else { Effect::Lossy }
    }

    fn rewrite(&self, graph: &Graph, cx: &RuleContext) -> Result<Vec<Patch>> {
        let mut patches = vec![];
        for v in graph.values() {
            let constant = graph.constant(v).filter(|t| t.dtype == DType::F32 && t.len() >= FEWEST);
            let Some(t) = constant.filter(|_| graph.has_uses(v) && !graph.is_output(v)) else { continue };
            let small = converted(t, self.to)?;
            let (before, after) = (t.to_f32()?, small.to_f32()?);
            let overflows = before.iter().zip(&after).any(|(a, b)| a.is_finite() && !b.is_finite());
            if overflows && !self.exact {
                cx.skip(NAME, graph.name(v), "it holds numbers beyond the range of the smaller type");
            }
            if overflows || self.exact && bits(&before) != bits(&after) {
                continue;
            }
            patches.push(self.patch(graph, v, small));
        }
        Ok(patches)
    }
}

impl StoreFloats {
    fn patch(&self, graph: &Graph, v: crate::ir::ValueId, small: Tensor) -> Patch {
        let mut patch = Patch::default();
        let suffix = if self.to == DType::BF16 { "bf16" } else { "f16" };
        let stored = patch.constant(&format!("{}_{suffix}", graph.name(v)), small);
        let mut node = Node::new(OpId::onnx("Cast"));
        node.rank = graph.uses(v).first().map_or(0, |u| graph.node(u.node).rank);
        node.set("to", i64::from(DType::F32.onnx()).into());
        let float = patch.node(node, &[Some(stored)], graph.name(v), graph.ty(v).cloned());
        patch.replace(v, float);
        patch
    }
}

fn bits(data: &[f32]) -> Vec<u32> {
    data.iter().map(|x| x.to_bits()).collect()
}
