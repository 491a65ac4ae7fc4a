//! Where migration may take place.

use crate::ir::{Dim, Graph, NodeId, Port, ValueId};
use crate::ops::spec::ComputeRole;
use crate::passes::quantize::options::{Mode, QuantizeOptions, Scope};
use crate::passes::quantize::structure::{Decision, Kind, Structure};

/// A value, and the linear layers that take it: they are scaled together.
pub struct Target {
    /// The value.
    pub input: ValueId,
    /// The layers, in execution order.
    pub layers: Vec<(NodeId, ComputeRole)>,
}

/// Inputs of quantized MatMul and Gemm nodes whose channels run along the last axis, in execution order; and of the others,
/// the name and why they are left alone.
pub fn targets(
    graph: &Graph,
    structure: &Structure,
    options: &QuantizeOptions,
) -> (Vec<Target>, Vec<(String, String)>) {
    let mut targets: Vec<Target> = vec![];
    for (id, kind) in structure.integer_nodes() {
        let Kind::Compute(role) = kind else { continue };
        let weight = graph.input(id, role.weight).and_then(|w| graph.constant(w));
        let (Some(x), Some(2)) = (graph.input(id, role.activation), weight.map(|w| w.rank())) else { continue };
        let layer = (id, role.clone());
        match targets.iter_mut().find(|t| t.input == x) {
            Some(target) => target.layers.push(layer),
            None => targets.push(Target { input: x, layers: vec![layer] }),
        }
    }
    let mut notes = vec![];
    targets.retain(|target| match refusal(graph, structure, options, target) {
        Some(why) => {
            notes.push((graph.name(target.input).to_string(), why.to_string()));
            false
        }
        None => true,
    });
    (targets, notes)
}

fn refusal(graph: &Graph, structure: &Structure, options: &QuantizeOptions, target: &Target) -> Option<&'static str> {
    let producer = graph.producer(target.input).map(|(p, _)| p);
    let integer = |p| matches!(structure.decision(p), Decision::Integer(_) | Decision::Absorbed);
    if producer.is_some_and(integer) && options.scope == Scope::Full && options.mode == Mode::Static {
        return Some("its 8-bit form is made by a layer: a factor per channel would come too late");
    }
    if graph.ty(target.input).and_then(|t| t.shape()).and_then(<[Dim]>::last).is_none() {
        return Some("the shape of the input is not known");
    }
    let own = |(id, role): &(NodeId, ComputeRole)| {
        let only = graph.input(*id, role.weight).and_then(|w| graph.only_use(w));
        only.is_some_and(|u| u.node == *id && u.port == Port::In(role.weight as u32))
    };
    (!target.layers.iter().all(own)).then_some("a weight has another use")
}
