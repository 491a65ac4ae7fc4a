//! Single nodes computed ahead of time, for constant folding.

use super::runner::{Runner, RunnerOptions};
use crate::error::Result;
use crate::io::Feed;
use crate::ir::{Graph, Model, Node, Tensor, Value, ValueId};
use crate::passes::Evaluator;

/// The IR version of the one-node models that are run; any that allows initializers that are no inputs will do.
const IR_VERSION: i64 = 8;

/// Computes nodes in the same runtime that validates the result.
pub struct RuntimeEvaluator;

impl Evaluator for RuntimeEvaluator {
    fn evaluate(&self, node: &Node, opset: i64, inputs: &[Option<Tensor>], outputs: usize) -> Result<Vec<Tensor>> {
        let model = one_node(node, opset, inputs, outputs)?;
        let results = Runner::new(&model, &RunnerOptions::default())?.run(&Feed::new())?;
        results.iter().map(|r| r.to_tensor()).collect()
    }
}

fn one_node(node: &Node, opset: i64, inputs: &[Option<Tensor>], outputs: usize) -> Result<Model> {
    let mut model = Model::default();
    model.shell.ir_version = Some(IR_VERSION);
    model.import(&node.op.domain, opset);
    let graph = &mut model.graph;
    let constant = |graph: &mut Graph, k: usize, t: &Option<Tensor>| -> Result<Option<ValueId>> {
        let Some(t) = t else { return Ok(None) };
        let mut value = Value::named(format!("in{k}"));
        value.ty = Some(crate::ir::Type::tensor(t.dtype, &t.dims));
        value.init = Some(t.clone());
        graph.add_value(value).map(Some)
    };
    let inputs: Result<Vec<_>> = inputs.iter().enumerate().map(|(k, t)| constant(graph, k, t)).collect();
    let outputs: Result<Vec<_>> = (0..outputs).map(|k| graph.add_value(Value::named(format!("out{k}")))).collect();
    let outputs = outputs?;
    let slots: Vec<_> = outputs.iter().copied().map(Some).collect();
    graph.add_node(node.clone(), &inputs?, &slots)?;
    graph.set_outputs(outputs);
    Ok(model)
}
