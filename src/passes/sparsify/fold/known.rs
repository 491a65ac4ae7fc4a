//! Channels that hold one number whatever the input.

use crate::analysis::shapes::Contexts;
use crate::error::Result;
use crate::ir::{Graph, Model, Node, NodeId, Tensor, ValueId};
use crate::math::Unfold;
use crate::passes::{Evaluator, Linear};
use std::collections::HashMap;

/// Operators that compute each element from that element alone, with scalars beside it.
const POINTWISE: [&str; 13] = [
    "Relu",
    "LeakyRelu",
    "Clip",
    "Sigmoid",
    "Tanh",
    "Elu",
    "Selu",
    "HardSigmoid",
    "HardSwish",
    "Softplus",
    "Gelu",
    "Mish",
    "Identity",
];

/// The channel axis of a value, and the number that each channel holds, where it is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Channels {
    pub axis: usize,
    pub values: Vec<Option<f32>>,
}

/// Follows constant channels from layers with rows of nothing but zeros through what lies behind them.
pub fn constant_channels(model: &Model, evaluator: &dyn Evaluator) -> Result<HashMap<ValueId, Channels>> {
    let graph = &model.graph;
    let contexts = Contexts::new(model, graph);
    let mut known: HashMap<ValueId, Channels> = HashMap::new();
    for id in graph.order()? {
        let Some(output) = graph.output(id, 0) else { continue };
        let found = match Linear::of(&contexts, graph, id) {
            Some(linear) => of_layer(graph, &linear, output)?,
            None => match graph.input(id, 0).and_then(|x| known.get(&x)) {
                Some(channels) => behind(model, id, channels, evaluator)?,
                None => None,
            },
        };
        if let Some(channels) = found.filter(|c| c.values.iter().flatten().any(|x| x.is_finite())) {
            known.insert(output, channels);
        }
    }
    Ok(known)
}

/// A row of zeros gives the bias, whatever it meets.
fn of_layer(graph: &Graph, linear: &Linear, output: ValueId) -> Result<Option<Channels>> {
    let Some(rank) = graph.ty(output).and_then(|t| t.shape()).map(<[_]>::len) else { return Ok(None) };
    let (Some(outputs), rows) = (linear.outputs(graph), linear.rows(graph)?) else { return Ok(None) };
    let axis = if matches!(linear.unfold, Unfold::Last) { rank.saturating_sub(1) } else { 1 };
    let bias = linear.offsets(graph, outputs)?;
    let zero = |row: &[f32]| row.iter().all(|&x| x == 0.0);
    let columns = rows.len().checked_div(outputs).unwrap_or(0).max(1);
    let values: Vec<Option<f32>> =
        rows.chunks(columns).zip(&bias).map(|(row, b)| zero(row).then_some(*b as f32)).collect();
    Ok(values.iter().any(Option::is_some).then_some(Channels { axis, values }))
}

/// What a node makes of constant channels of its first input; `None` where that is not known.
fn behind(model: &Model, id: NodeId, channels: &Channels, evaluator: &dyn Evaluator) -> Result<Option<Channels>> {
    let (graph, node) = (&model.graph, model.graph.node(id));
    if !node.op.domain.is_empty() {
        return Ok(None);
    }
    let keep = |values| Ok(Some(Channels { axis: channels.axis, values }));
    match &*node.op.op_type {
        op if POINTWISE.contains(&op) => pointwise(model, id, channels, evaluator),
        "BatchNormalization" if channels.axis == 1 => match normalized(graph, id, &channels.values) {
            Some(values) => keep(values),
            None => Ok(None),
        },
        "Add" | "Mul" => Ok(with_constant(graph, id, channels)),
        // A window sees the number alone: what pads a maximum is less than all, and does not count in a mean.
        "MaxPool" | "GlobalMaxPool" | "GlobalAveragePool" if channels.axis == 1 => keep(channels.values.clone()),
        "AveragePool" if channels.axis == 1 && unpadded(node) => keep(channels.values.clone()),
        "Flatten" => Ok(flattened(graph, id, channels)),
        _ => Ok(None),
    }
}

fn unpadded(node: &Node) -> bool {
    let no_pads = node.ints("pads").is_none_or(|p| p.iter().all(|&p| p == 0));
    let explicit = node.string("auto_pad").is_none_or(|p| p == "NOTSET" || p == "VALID");
    (no_pads && explicit && node.int("ceil_mode").unwrap_or(0) == 0) || node.int("count_include_pad").unwrap_or(0) == 0
}

/// Runs the node on the numbers alone.
fn pointwise(model: &Model, id: NodeId, channels: &Channels, evaluator: &dyn Evaluator) -> Result<Option<Channels>> {
    let (graph, node) = (&model.graph, model.graph.node(id));
    let numbers: Vec<f32> = channels.values.iter().map(|x| x.unwrap_or(0.0)).collect();
    let mut inputs = vec![Some(Tensor::from_f32(&[numbers.len()], &numbers))];
    for slot in graph.node_inputs(id).into_iter().skip(1) {
        let Some(v) = slot else {
            inputs.push(None);
            continue;
        };
        let Some(t) = graph.constant(v).filter(|t| t.len() == 1) else { return Ok(None) };
        inputs.push(Some(t.clone()));
    }
    let opset = model.default_opset();
    let Ok(results) = evaluator.evaluate(node, opset, &inputs, 1) else { return Ok(None) };
    let Some(result) = results.first().filter(|t| t.dims == [numbers.len()]) else { return Ok(None) };
    let values = channels.values.iter().zip(result.to_f32()?).map(|(x, y)| x.map(|_| y)).collect();
    Ok(Some(Channels { axis: channels.axis, values }))
}

fn normalized(graph: &Graph, id: NodeId, values: &[Option<f32>]) -> Option<Vec<Option<f32>>> {
    let node = graph.node(id);
    if node.int("training_mode").unwrap_or(0) != 0 {
        return None;
    }
    let read = |slot| graph.constant(graph.input(id, slot)?)?.to_f32().ok().filter(|v| v.len() == values.len());
    let (scale, bias, mean, var) = (read(1)?, read(2)?, read(3)?, read(4)?);
    let epsilon = node.float("epsilon").unwrap_or(1e-5);
    let y = |k: usize, x: f32| (x - mean[k]) / (var[k] + epsilon).sqrt() * scale[k] + bias[k];
    Some(values.iter().enumerate().map(|(k, x)| x.map(|x| y(k, x))).collect())
}

/// A constant that has one number for each channel, or one for all.
fn with_constant(graph: &Graph, id: NodeId, channels: &Channels) -> Option<Channels> {
    let (n, t) = (channels.values.len(), graph.constant(graph.input(id, 1)?)?);
    let rank = graph.ty(graph.input(id, 0)?)?.shape()?.len();
    // Where the channels lie in the constant, which is aligned at the last axis.
    let at = (channels.axis + t.rank()).checked_sub(rank);
    let fits = t.len() == 1 || (t.len() == n && at.is_some_and(|a| t.dims.get(a) == Some(&n)));
    if !fits || t.rank() > rank {
        return None;
    }
    let numbers = t.to_f32().ok()?;
    let number = |k: usize| if numbers.len() == 1 { numbers[0] } else { numbers[k] };
    let add = graph.node(id).op.is("Add");
    let y = |(k, x): (usize, &Option<f32>)| x.map(|x| if add { x + number(k) } else { x * number(k) });
    Some(Channels { axis: channels.axis, values: channels.values.iter().enumerate().map(y).collect() })
}

/// Every element of a channel becomes a channel.
fn flattened(graph: &Graph, id: NodeId, channels: &Channels) -> Option<Channels> {
    let shape = graph.ty(graph.input(id, 0)?)?.shape()?;
    if channels.axis != 1 || graph.node(id).int("axis").unwrap_or(1) != 1 {
        return None;
    }
    let inner = shape.get(2..)?.iter().try_fold(1usize, |n, d| n.checked_mul(d.known()?))?;
    let values = channels.values.iter().flat_map(|x| std::iter::repeat_n(*x, inner)).collect();
    Some(Channels { axis: 1, values })
}
