//! Nodes of the plain kind, which tract runs as they are; the others of their operators are for our own kernels.

use crate::ir::{AttributeValue, Graph, NodeId};

/// Attributes of the recurrent operators that tract reads, or that change nothing.
const RECURRENT: &[&str] = &["direction", "hidden_size", "linear_before_reset"];

/// Padding with one constant, along every axis, by numbers that are known and not negative. tract's other modes use the
/// constant too.
pub(super) fn pad(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let constant = |slot: usize| graph.input(id, slot).map(|v| graph.constant(v));
    let pads = match constant(1) {
        Some(pads) => pads.and_then(|t| t.to_i64().ok()),
        None => node.ints("pads").map(<[i64]>::to_vec),
    };
    let scalar = constant(2).is_none_or(|value| value.is_some_and(|t| t.rank() == 0));
    let plain = node.string("mode").unwrap_or("constant") == "constant" && graph.input(id, 3).is_none();
    plain && scalar && pads.is_some_and(|pads| pads.iter().all(|&p| p >= 0))
}

/// A forward slice by constants that fit in 32 bits, or that mean the end. tract gets the clamping of the others wrong.
pub(super) fn slice(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let given = |slot: usize, name: &str| match graph.input(id, slot) {
        Some(v) => graph.constant(v).and_then(|t| t.to_i64().ok()),
        None => node.ints(name).map(<[i64]>::to_vec),
    };
    let narrow = |&v: &i64| v > i64::from(i32::MIN);
    let (Some(starts), Some(ends)) = (given(1, "starts"), given(2, "ends")) else { return false };
    let forward = graph.input(id, 4).is_none() || given(4, "steps").is_some_and(|s| s.iter().all(|&s| s > 0));
    let starts_fit = starts.iter().all(|&s| narrow(&s) && s < i64::from(i32::MAX));
    forward && starts_fit && ends.iter().all(narrow)
}

/// Padding that does not follow from the shapes: there, tract's arithmetic overflows.
pub(super) fn conv_transpose(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    node.ints("output_shape").is_none() && !node.string("auto_pad").is_some_and(|p| p.starts_with("SAME_"))
}

/// A forward or bidirectional recurrence with the default activations and over whole sequences. tract reads neither other
/// activations, nor clipping, nor a coupled forget gate, and runs `reverse` forward.
pub(super) fn recurrence(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let default: &[&str] = match &*node.op.op_type {
        "LSTM" => &["Sigmoid", "Tanh", "Tanh"],
        "GRU" => &["Sigmoid", "Tanh"],
        _ => &["Tanh"],
    };
    let lengths_or_peepholes = [4, 7].iter().any(|&slot| graph.input(id, slot).is_some());
    let known = node.attributes.iter().all(|a| match (&*a.name, &a.value) {
        ("activations", AttributeValue::Strings(s)) => {
            s.iter().zip(default.iter().cycle()).all(|(s, d)| s == d.as_bytes())
                && s.len().is_multiple_of(default.len())
        }
        ("input_forget" | "layout", AttributeValue::Int(0)) => true,
        (name, _) => RECURRENT.contains(&name),
    });
    known && !lengths_or_peepholes && node.string("direction").unwrap_or("forward") != "reverse"
}

/// Several operands, or an ellipsis.
pub(super) fn einsum(graph: &Graph, id: NodeId) -> bool {
    graph.node_inputs(id).len() != 1 || graph.node(id).string("equation").is_some_and(|e| e.contains('.'))
}
