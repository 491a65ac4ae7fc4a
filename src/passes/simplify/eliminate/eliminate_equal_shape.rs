//! Of small integer tensors that hold the same sizes, one is computed.

use super::support::{can_stand_for, elem, is_used, shape};
use crate::error::Result;
use crate::ir::{Dim, Graph, ValueId};
use crate::passes::{Effect, GraphRewrite, Patch, RuleContext};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Before: `s = Shape(a)` and, later, `t = Where(c, ones, s)`, both of which are `[batch, seq]`. After: uses of `t` use `s`.
///
/// When: all elements of both are known numbers or sizes, at least one is a size, and type and rank are equal. The value
/// that comes first in execution order stays. (What consists of numbers alone becomes a constant by another rule.)
/// Why it is equal: equal symbols are equal sizes.
pub struct EliminateEqualShape;

impl GraphRewrite for EliminateEqualShape {
    fn name(&self) -> &'static str {
        "eliminate_equal_shape"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn rewrite(&self, graph: &Graph, cx: &RuleContext) -> Result<Vec<Patch>> {
        let mut first: HashMap<_, ValueId> = HashMap::new();
        let mut patches = vec![];
        for id in graph.order()? {
            for v in graph.node_outputs(id).into_iter().flatten().filter(|&v| is_used(graph, v)) {
                let Some(sizes) = cx.data.get(&v).filter(|d| is_worth_it(d)) else { continue };
                let (Some(elem), Some(shape)) = (elem(graph, v), shape(graph, v)) else { continue };
                match first.entry((elem, shape.len(), sizes)) {
                    Entry::Vacant(free) => drop(free.insert(v)),
                    Entry::Occupied(taken) if can_stand_for(graph, *taken.get(), v) && !graph.is_output(v) => {
                        let mut patch = Patch::default();
                        patch.replace(v, *taken.get());
                        patches.push(patch);
                    }
                    Entry::Occupied(_) => {}
                }
            }
        }
        Ok(patches)
    }
}

fn is_worth_it(sizes: &[Dim]) -> bool {
    !sizes.contains(&Dim::Unknown) && sizes.iter().any(|d| matches!(d, Dim::Sym(_)))
}
