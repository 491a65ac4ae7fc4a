//! What a model would cost after a cut, without making it.

use super::slice::Cut;
use crate::analysis::shapes::Contexts;
use crate::ir::{Model, Type};
use crate::ops;
use crate::ops::spec::Known;

/// Cost of a model, and of what a cut would leave of it.
pub struct Budget<'a> {
    model: &'a Model,
    contexts: Contexts<'a>,
}

impl<'a> Budget<'a> {
    /// For a model whose types are inferred.
    pub fn new(model: &'a Model) -> Self {
        Self { model, contexts: Contexts::new(model, &model.graph) }
    }

    /// Multiply-accumulates of one sample after the cut; nodes that cannot be counted count as 0.
    pub fn macs(&self, cut: &Cut) -> u64 {
        let graph = &self.model.graph;
        let mut total = 0u64;
        for id in graph.nodes() {
            let node = graph.node(id);
            let Some(spec) = ops::spec(&node.op).filter(|_| node.bodies().next().is_none()) else { continue };
            let mut cx = self.contexts.of(id);
            let inputs = graph.node_inputs(id);
            let types: Vec<Option<Type>> = inputs.iter().map(|v| cut.ty(graph, (*v)?)).collect();
            let outputs: Vec<Option<Type>> = graph.node_outputs(id).into_iter().map(|v| cut.ty(graph, v?)).collect();
            for (known, ty) in cx.inputs.iter_mut().zip(&types) {
                if let Some(known) = known {
                    *known = Known { ty: ty.as_ref(), ..known.clone() };
                }
            }
            let outputs: Vec<Option<&Type>> = outputs.iter().map(Option::as_ref).collect();
            // Hidden sizes and group counts are attributes that the cut has not reached: shapes tell.
            let mut bare = node.clone();
            bare.attributes.retain(|a| &*a.name != "hidden_size");
            cx.node = &bare;
            total = total.saturating_add(spec.macs(&cx, &outputs).unwrap_or(0));
        }
        total
    }

    /// Elements of all constants of the main graph after the cut.
    pub fn params(&self, cut: &Cut) -> u64 {
        let graph = &self.model.graph;
        let of_value = |v| {
            let t = graph.constant(v)?;
            let ty = cut.ty(graph, v);
            Some(ty.and_then(|t| t.static_shape()).map_or(t.len(), |d| d.iter().product()) as u64)
        };
        graph.values().filter_map(of_value).sum()
    }
}
