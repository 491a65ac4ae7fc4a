//! Moving a model to a newer operator set.

use super::shapes::{Contexts, FIRST_IR_WITH_DEFAULTS, infer_types};
use crate::error::{Error, Result};
use crate::ir::{Graph, Model, NEWEST_OPSET, Node, NodeId, Tensor, Value, ValueId};
use crate::ops;
use crate::ops::spec::Upgrade;
use std::collections::HashSet;
use std::sync::Arc;

/// (operator set, first IR version that may use it), from the table in `onnx.helper`.
const IR_VERSIONS: &[(i64, i64)] =
    &[(1, 3), (9, 4), (10, 5), (11, 6), (12, 7), (15, 8), (19, 9), (21, 10), (23, 11), (24, 12), (25, 13)];

/// Makes sure that the default domain's operator set is at least `version`, upgrading op by op through
/// [`ops::spec::OpSpec::upgrade`], bodies included. Model-local functions import operator sets of their own and stay as they are.
/// Either everything is upgraded or the model is unchanged.
///
/// # Errors
/// A version that does not exist, and nodes that cannot be upgraded: all of them, with the reasons.
pub fn require(model: &mut Model, version: i64) -> Result<()> {
    if model.default_opset() >= version {
        return Ok(());
    }
    if version > NEWEST_OPSET {
        return Err(Error::unsupported(format!("operator set {version}: the newest known is {NEWEST_OPSET}")));
    }
    // Cloning copies no weights, and an upgrade that fails half-way leaves nothing behind.
    let mut upgraded = model.clone();
    // Some upgrades need ranks. A model that breaks a rule elsewhere is not this function's to refuse.
    let _ = infer_types(&mut upgraded);
    let mut plan = Plan { names: HashSet::new(), refused: vec![] };
    plan.collect_names(&upgraded.graph);
    let mut graph = std::mem::take(&mut upgraded.graph);
    plan.upgrade_graph(&upgraded, &mut graph, version)?;
    if !plan.refused.is_empty() {
        let (from, all) = (model.default_opset(), plan.refused.join("; "));
        return Err(Error::unsupported(format!("operator set {from} cannot be upgraded to {version}: {all}")));
    }
    upgraded.graph = graph;
    upgraded.set_default_opset(version);
    let ir = IR_VERSIONS.iter().rev().find(|(opset, _)| *opset <= version).map_or(3, |row| row.1);
    if upgraded.ir_version() < FIRST_IR_WITH_DEFAULTS && ir >= FIRST_IR_WITH_DEFAULTS {
        keep_constants_constant(&mut upgraded.graph);
    }
    upgraded.require_ir_version(ir);
    *model = upgraded;
    Ok(())
}

/// Initializers that had to be listed as inputs leave the list: a newer IR version would make them mere defaults.
fn keep_constants_constant(graph: &mut Graph) {
    let inputs = graph.required_inputs().collect();
    graph.set_inputs(inputs);
}

struct Plan {
    /// Every value name in the model: new names must differ from those of enclosing graphs and bodies too.
    names: HashSet<Arc<str>>,
    refused: Vec<String>,
}

impl Plan {
    fn collect_names(&mut self, graph: &Graph) {
        self.names.extend(graph.values().map(|v| graph.value(v).name.clone()));
        for id in graph.nodes() {
            graph.node(id).bodies().for_each(|body| self.collect_names(body));
        }
    }

    /// `model` gives the operator sets; its own graph is not looked at.
    fn upgrade_graph(&mut self, model: &Model, graph: &mut Graph, to: i64) -> Result<()> {
        let mut nodes: Vec<NodeId> = graph.nodes().filter(|&id| graph.node(id).op.domain.is_empty()).collect();
        nodes.sort_by_key(|&id| (graph.node(id).rank, id));
        let contexts = Contexts::new(model, graph);
        let upgrade = |id: NodeId| match ops::spec(&graph.node(id).op) {
            Some(spec) => {
                let cx = contexts.of(id);
                (id, cx.used_outputs, spec.upgrade(&cx, to))
            }
            None => (id, 0, unspecified(model.default_opset(), to, &graph.node(id).op.op_type)),
        };
        let upgrades: Vec<_> = nodes.into_iter().map(upgrade).collect();
        for (id, used, upgrade) in upgrades {
            match upgrade {
                Upgrade::Same => {}
                Upgrade::Changed { node, new_inputs } => self.apply(graph, id, used, *node, new_inputs)?,
                Upgrade::Impossible(why) => self.refused.push(format!("{}: {why}", graph.node(id).label())),
            }
        }
        let owners: Vec<NodeId> = graph.nodes().filter(|&id| graph.node(id).bodies().next().is_some()).collect();
        for id in owners {
            for body in graph.node_mut(id).bodies_mut() {
                self.upgrade_graph(model, body, to)?;
            }
        }
        Ok(())
    }

    fn apply(
        &mut self,
        graph: &mut Graph,
        id: NodeId,
        used: usize,
        node: Node,
        new_inputs: Vec<(usize, Tensor)>,
    ) -> Result<()> {
        *graph.node_mut(id) = node;
        let outputs = graph.node_outputs(id);
        // An output that nobody uses may have changed its type with the operator set.
        for v in outputs.iter().skip(used).flatten() {
            let value = graph.value_mut(*v);
            (value.ty, value.shell) = (None, None);
        }
        let hint = outputs.into_iter().flatten().next().map(|v| graph.name(v).to_string());
        let hint = hint.unwrap_or_else(|| "upgraded".into());
        for (slot, tensor) in new_inputs {
            let constant = self.add_constant(graph, &format!("{hint}_in{slot}"), tensor)?;
            graph.set_input(id, slot, Some(constant));
        }
        Ok(())
    }

    fn add_constant(&mut self, graph: &mut Graph, hint: &str, tensor: Tensor) -> Result<ValueId> {
        let mut name: Arc<str> = hint.into();
        let mut k = 1u32;
        while self.names.contains(&name) {
            name = format!("{hint}_{k}").into();
            k += 1;
        }
        self.names.insert(name.clone());
        let mut value = Value::named(name);
        value.ty = Some(crate::ir::Type::tensor(tensor.dtype, &tensor.dims));
        value.init = Some(tensor);
        graph.add_value(value)
    }
}

/// An op without a file may move as long as no operator set in between redefined it.
fn unspecified(from: i64, to: i64, op_type: &str) -> Upgrade {
    match ops::redefined(op_type) {
        None => Upgrade::Impossible("nothing is known of this operator".into()),
        Some(sets) => match sets.iter().find(|&&s| s > from && s <= to) {
            Some(set) => Upgrade::Impossible(format!("operator set {set} redefined it")),
            None => Upgrade::Same,
        },
    }
}
