//! Moving a model to a newer operator set.

use super::shapes::{Contexts, FIRST_IR_WITH_DEFAULTS, infer_types};
use crate::error::{Error, Result};
use crate::ir::{Graph, Model, NEWEST_OPSET, Node, NodeId, Tensor, Value, ValueId};
use crate::ops;
use crate::ops::spec::{Source, Step, Upgrade};
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

const MEMORY_HINT: &str = "consumed_inputs";

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
        // A hint to reuse memory that operator set 6 dropped, from whatever operator had it.
        for &id in &nodes {
            if graph.node(id).attribute(MEMORY_HINT).is_some() {
                graph.node_mut(id).attributes.retain(|a| &*a.name != MEMORY_HINT);
            }
        }
        let contexts = Contexts::new(model, graph);
        let upgrade = |id: NodeId| match ops::spec(&graph.node(id).op) {
            Some(spec) => {
                let cx = contexts.of(id);
                (id, cx.used_outputs, spec.upgrade(&cx, to))
            }
            None => (id, 0, Upgrade::Impossible("nothing is known of this operator".into())),
        };
        let upgrades: Vec<_> = nodes.into_iter().map(upgrade).collect();
        for (id, used, upgrade) in upgrades {
            match upgrade {
                Upgrade::Same => {}
                Upgrade::Changed { node, new_inputs } => self.apply(graph, id, used, *node, new_inputs)?,
                Upgrade::Replaced(steps) => self.replace(graph, id, steps)?,
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

    /// The last step takes over the node and its outputs; the earlier ones become nodes before it.
    fn replace(&mut self, graph: &mut Graph, id: NodeId, mut steps: Vec<Step>) -> Result<()> {
        let Some(last) = steps.pop() else { return Ok(()) };
        let (original, rank) = (graph.node_inputs(id), graph.node(id).rank);
        let hint = graph.node_outputs(id).into_iter().flatten().next().map(|v| graph.name(v).to_string());
        let hint = hint.unwrap_or_else(|| "upgraded".into());
        let mut made: Vec<ValueId> = vec![];
        for (k, step) in steps.into_iter().enumerate() {
            let inputs = self.sources(graph, &original, &made, &hint, step.inputs)?;
            let output = graph.add_value(Value::named(self.fresh(&format!("{hint}_step{k}"))))?;
            let node = Node { rank, ..step.node };
            graph.add_node(node, &inputs, &[Some(output)])?;
            made.push(output);
        }
        let inputs = self.sources(graph, &original, &made, &hint, last.inputs)?;
        // What the slots hold is the graph's fact, not the new node's.
        let (input_slots, output_slots) = (graph.node(id).input_slots, graph.node(id).output_slots);
        *graph.node_mut(id) = Node { rank, input_slots, output_slots, ..last.node };
        for slot in 0..inputs.len().max(original.len()) {
            graph.set_input(id, slot, inputs.get(slot).copied().flatten());
        }
        graph.node_mut(id).input_slots = inputs.len() as u32;
        Ok(())
    }

    fn sources(
        &mut self,
        graph: &mut Graph,
        original: &[Option<ValueId>],
        made: &[ValueId],
        hint: &str,
        sources: Vec<Source>,
    ) -> Result<Vec<Option<ValueId>>> {
        let value = |source| match source {
            Source::Input(slot) => Ok(original.get(slot).copied().flatten()),
            Source::Step(k) => Ok(made.get(k).copied()),
            Source::Constant(t) => self.add_constant(graph, &format!("{hint}_const"), t).map(Some),
        };
        sources.into_iter().map(value).collect()
    }

    /// A name that no value in the model has: `hint`, or with a number.
    fn fresh(&mut self, hint: &str) -> Arc<str> {
        let mut name: Arc<str> = hint.into();
        let mut k = 1u32;
        while self.names.contains(&name) {
            name = format!("{hint}_{k}").into();
            k += 1;
        }
        self.names.insert(name.clone());
        name
    }

    fn add_constant(&mut self, graph: &mut Graph, hint: &str, tensor: Tensor) -> Result<ValueId> {
        let mut value = Value::named(self.fresh(hint));
        value.ty = Some(crate::ir::Type::tensor(tensor.dtype, &tensor.dims));
        value.init = Some(tensor);
        graph.add_value(value)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Builder, type_of};
    use super::*;
    use crate::ir::AttributeValue;

    fn upgraded(b: Builder, from: i64, to: i64) -> Result<Model> {
        let mut model = b.model(from, &["y"]);
        require(&mut model, to)?;
        model.verify()?;
        infer_types(&mut model)?;
        assert_eq!(model.default_opset(), to);
        Ok(model)
    }

    fn producer<'a>(model: &'a Model, name: &str) -> (NodeId, &'a Node) {
        let (id, _) = model.graph.producer(model.graph.find(name).unwrap()).unwrap();
        (id, model.graph.node(id))
    }

    #[test]
    fn attributes_become_constant_inputs() {
        let axes = |v: Vec<i64>| ("axes", AttributeValue::Ints(v));
        let b = Builder::default().input("x", &["n", "1", "6"]);
        let b = b.node("Squeeze", &["x"], &["a"], &[axes(vec![1])]);
        let b = b.node("Slice", &["a"], &["b"], &[axes(vec![1]), ("starts", vec![1].into()), ("ends", vec![5].into())]);
        let b = b.node("Clip", &["b"], &["c"], &[("max", 6.0.into())]);
        let b = b.node("ReduceMean", &["c"], &["d"], &[axes(vec![1])]);
        let b = b.node("Dropout", &["d"], &["e", "mask"], &[("ratio", 0.25.into())]);
        let b = b.node("Unsqueeze", &["e"], &["f"], &[axes(vec![0])]);
        let b = b.node("Split", &["b"], &["y", "z"], &[("axis", 1.into())]);
        let mut model = b.model(9, &["y", "f"]);
        require(&mut model, 21).unwrap();
        model.verify().unwrap();
        infer_types(&mut model).unwrap();
        assert_eq!(type_of(&model, "y"), "float[n, 2]");
        assert_eq!(type_of(&model, "f"), "float[1, n, 1]");
        assert_eq!(type_of(&model, "mask"), "bool[n, 1]");
        let input = |name, slot| {
            let v = model.graph.input(producer(&model, name).0, slot).unwrap();
            model.graph.constant(v).unwrap().clone()
        };
        assert_eq!(input("c", 2), Tensor::from_f32(&[], &[6.0]));
        assert!(model.graph.input(producer(&model, "c").0, 1).is_none());
        assert_eq!(input("d", 1), Tensor::from_i64(&[1], &[1]));
        assert_eq!(input("e", 1), Tensor::from_f32(&[], &[0.25]));
        assert_eq!(producer(&model, "y").1.int("num_outputs"), Some(2));
        assert!(model.graph.nodes().all(|id| model.graph.node(id).attribute("axes").is_none()));
        assert_eq!(model.ir_version(), 10);
    }

    #[test]
    fn softmax_over_several_axes_works_on_a_matrix() {
        let softmax = |dims: &[&str], axis: i64| {
            Builder::default().input("x", dims).node("Softmax", &["x"], &["y"], &[("axis", axis.into())])
        };
        let several = upgraded(softmax(&["1", "4", "5"], 1), 9, 13).unwrap();
        let (id, node) = producer(&several, "y");
        assert!(node.op.is("Reshape"), "{}", node.op);
        let rows = several.graph.producer(several.graph.input(id, 0).unwrap()).unwrap().0;
        assert!(several.graph.node(rows).op.is("Softmax"));
        assert_eq!(several.graph.node(rows).int("axis"), Some(-1));
        assert_eq!(type_of(&several, "y"), "float[1, 4, 5]");
        let e = upgraded(softmax(&["n", "4", "5"], 1), 9, 13).unwrap_err().to_string();
        assert!(e.contains("node \"n0\" (Softmax): its input might be empty"), "{e}");
        let one = upgraded(softmax(&["n", "4", "1", "1"], 1), 9, 13).unwrap();
        assert_eq!(producer(&one, "y").1.int("axis"), Some(1));
        let last = upgraded(softmax(&["n", "4", "5"], -1), 9, 13).unwrap();
        assert_eq!(producer(&last, "y").1.int("axis"), Some(2));
    }

    #[test]
    fn every_refusal_is_listed_and_nothing_changes() {
        let b = Builder::default().input("x", &["1", "4"]);
        let b = b.node("Mystery", &["x"], &["a"], &[]).node("ReduceMax", &["a"], &["b"], &[("axes", vec![0].into())]);
        let coarse = ("coordinate_transformation_mode", "tf_half_pixel_for_nn".into());
        let b = b.node("Resize", &["b", "", "b"], &["y"], &[coarse]);
        let mut model = b.model(12, &["y"]);
        let e = require(&mut model, 21).unwrap_err().to_string();
        assert!(e.contains("operator set 12 cannot be upgraded to 21"), "{e}");
        assert!(e.contains("(Mystery): nothing is known") && e.contains("(Resize): \"tf_half_pixel_for_nn\""), "{e}");
        assert_eq!(model.default_opset(), 12);
        assert!(producer(&model, "b").1.attribute("axes").is_some());
        assert!(require(&mut model, 9).is_ok() && require(&mut model, 1000).is_err());
    }

    #[test]
    fn bodies_are_upgraded_with_names_of_their_own() {
        let body = |name: &str| {
            let b = Builder::default().node("Squeeze", &["x"], &[name], &[("axes", vec![0].into())]);
            Box::new(b.outputs(&[name]))
        };
        let branches =
            [("then_branch", AttributeValue::Graph(body("t"))), ("else_branch", AttributeValue::Graph(body("e")))];
        let b = Builder::default().input("x", &["1", "4"]).input("c", &[]).input("t_in1", &[]);
        let model = upgraded(b.node("If", &["c"], &["y"], &branches), 11, 13).unwrap();
        for body in producer(&model, "y").1.bodies() {
            let id = body.nodes().next().unwrap();
            let axes = body.input(id, 1).unwrap();
            assert_eq!(body.constant(axes), Some(&Tensor::from_i64(&[1], &[0])));
            assert_ne!(body.name(axes), "t_in1");
        }
    }

    #[test]
    fn listed_initializers_of_old_files_stay_constant() {
        let mut b = Builder::default().input("x", &["2", "6"]).constant("to", Tensor::from_i64(&[2], &[3, 4]));
        let inputs = b.graph.inputs().iter().copied().chain(b.graph.find("to")).collect();
        b.graph.set_inputs(inputs);
        let mut model = b.node("Reshape", &["x", "to"], &["y"], &[]).model(8, &["y"]);
        model.shell.ir_version = Some(3);
        require(&mut model, 13).unwrap();
        assert!(model.graph.constant(model.graph.find("to").unwrap()).is_some());
        assert_eq!(model.graph.inputs().len(), 1);
        infer_types(&mut model).unwrap();
        assert_eq!(type_of(&model, "y"), "float[3, 4]");
    }

    #[test]
    fn upsample_becomes_resize() {
        let scales = Tensor::from_f32(&[4], &[1.0, 1.0, 2.0, 3.0]);
        let b = Builder::default().input("x", &["1", "1", "4", "4"]).constant("s", scales);
        let b = b.node("Upsample", &["x", "s"], &["y"], &[("mode", "nearest".into())]);
        let model = upgraded(b, 9, 13).unwrap();
        let (_, node) = producer(&model, "y");
        assert!(node.op.is("Resize"));
        assert_eq!(node.string("coordinate_transformation_mode"), Some("asymmetric"));
        assert_eq!(type_of(&model, "y"), "float[1, 1, 8, 12]");
    }

    #[test]
    fn old_broadcasting_aligns_at_its_axis() {
        let b = Builder::default().input("x", &["2", "3", "4"]).input("b", &["3"]);
        let b = b.node("Add", &["x", "b"], &["y"], &[("broadcast", 1.into()), ("axis", 1.into())]);
        let model = upgraded(b, 6, 21).unwrap();
        let (id, node) = producer(&model, "y");
        assert!(node.op.is("Add") && node.attributes.is_empty());
        assert_eq!(type_of(&model, "y"), "float[2, 3, 4]");
        let second = model.graph.input(id, 1).unwrap();
        assert_eq!(model.graph.ty(second).unwrap().to_string(), "float[3, 1]");
        let b = Builder::default().input("x", &["2", "3"]).input("b", &["3"]);
        let b = b.node("Mul", &["x", "b"], &["y"], &[("broadcast", 1.into()), ("consumed_inputs", vec![0, 0].into())]);
        let model = upgraded(b, 5, 13).unwrap();
        assert!(model.graph.node_count() == 1 && producer(&model, "y").1.attributes.is_empty());
    }

    #[test]
    fn a_slope_per_channel_stays_per_channel() {
        let b = Builder::default().input("x", &["n", "3", "4", "4"]).input("s", &["3"]);
        let model = upgraded(b.node("PRelu", &["x", "s"], &["y"], &[]), 6, 9).unwrap();
        assert_eq!(type_of(&model, "y"), "float[n, 3, 4, 4]");
        let slope = model.graph.input(producer(&model, "y").0, 1).unwrap();
        assert_eq!(model.graph.ty(slope).unwrap().to_string(), "float[3, 1, 1]");
    }
}
