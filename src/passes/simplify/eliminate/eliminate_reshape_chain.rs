//! Of two operators that give the elements another shape, the first goes.

use super::reshaping::{Part, RESHAPING, after, parts};
use super::support::{bypass, exact_rule, maker, shape};
use crate::ir::{AttributeValue, Dim, Graph, Node, NodeId, OpId, Tensor, ValueId};
use crate::passes::{Patch, RuleContext};

/// Before: `m = f(x)`, `y = g(m)`, with `f` and `g` of Reshape, Flatten, Squeeze, Unsqueeze and those Transposes that move
/// axes of size 1 only (one of the two may be such). After: uses of `y` use `x` where they undo each other; else
/// (between a graph input and a graph output) an Identity; one Squeeze or Unsqueeze where both were such; or `y = Reshape(x, constant)`.
///
/// When: `m` has no other use (unless nothing is left). The shape of `y` can be asked for: known numbers, sizes of the
/// same axis of `x` (0), and one -1, which the second node asked for itself or which stands beside numbers above 0.
/// Why it is equal: all keep the elements in order, so the shape is all there is. 0 is written only where it copies the
/// axis that was copied before; a -1 beside sizes that may be 0 is never new.
pub struct EliminateReshapeChain;

exact_rule!(
    EliminateReshapeChain,
    "eliminate_reshape_chain",
    ["Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"],
    apply
);

fn apply(graph: &Graph, id: NodeId, cx: &RuleContext) -> Option<Patch> {
    let mid = graph.input(id, 0)?;
    let first = maker(graph, mid, &RESHAPING)?;
    let is = |node, op| graph.node(node).op.is(op);
    if is(id, "Transpose") && is(first, "Transpose") {
        return None; // has a rule of its own
    }
    let x = graph.input(first, 0)?;
    let joined = after(&parts(graph, cx, id)?, &parts(graph, cx, first)?)?;
    let input = shape(graph, x);
    let undone = input.is_some_and(|s| is_shape(&joined, s));
    if undone && let Some(patch) = bypass(graph, id, x) {
        return Some(patch);
    }
    if cx.opset < 5 || graph.only_use(mid)?.node != id {
        return None;
    }
    let squeezes = |node| is(node, "Squeeze") || is(node, "Unsqueeze");
    let axes =
        if squeezes(id) && squeezes(first) { input.and_then(|s| inserted_or_removed(&joined, s.len())) } else { None };
    let (op, list) = match axes {
        _ if undone => ("Identity", vec![]),
        Some((op, axes)) => (op, axes),
        None => ("Reshape", target(&joined, input)?),
    };
    Some(rewritten(graph, cx, id, x, op, list))
}

/// Whether these are the dimensions `shape` itself.
fn is_shape(parts: &[Part], shape: &[Dim]) -> bool {
    let same = |(k, (p, d)): (usize, (&Part, &Dim))| match p {
        Part::Copy(j) => *j == k,
        Part::Literal(n) => *d == Dim::Known(*n),
        Part::Rest => true,
    };
    parts.len() == shape.len() && parts.iter().zip(shape).enumerate().all(same)
}

/// The Unsqueeze that adds the ones among `parts`, or the Squeeze that leaves out what they do not copy.
fn inserted_or_removed(parts: &[Part], rank: usize) -> Option<(&'static str, Vec<i64>)> {
    let copied: Vec<usize> = parts.iter().filter_map(|p| if let Part::Copy(k) = p { Some(*k) } else { None }).collect();
    if copied.len() == rank && copied.iter().enumerate().all(|(k, &a)| k == a) {
        let added = parts.iter().enumerate().filter(|(_, p)| **p == Part::Literal(1)).map(|(k, _)| k as i64);
        let added: Vec<i64> = added.collect();
        return (added.len() + rank == parts.len()).then_some(("Unsqueeze", added));
    }
    let in_order = copied.len() == parts.len() && copied.is_sorted();
    in_order.then(|| ("Squeeze", (0..rank).filter(|k| !copied.contains(k)).map(|k| k as i64).collect()))
}

/// The target of a Reshape.
fn target(parts: &[Part], input: Option<&[Dim]>) -> Option<Vec<i64>> {
    let known =
        |k: usize| input.and_then(|s| s.get(k)).and_then(|d| if let Dim::Known(n) = d { Some(*n) } else { None });
    let number = |(k, p): (usize, &Part)| match p {
        Part::Literal(n) => (*n > 0).then_some(*n),
        Part::Rest => Some(-1),
        Part::Copy(j) => known(*j).filter(|&n| n > 0).or((*j == k).then_some(0)),
    };
    let numbers: Vec<Option<i64>> = parts.iter().enumerate().map(number).collect();
    let open = numbers.iter().filter(|n| n.is_none()).count();
    let settled = numbers.iter().flatten().all(|&n| n > 0) && !parts.contains(&Part::Literal(0));
    (open == 0 || (open == 1 && settled)).then(|| numbers.iter().map(|n| n.unwrap_or(-1)).collect())
}

fn rewritten(graph: &Graph, cx: &RuleContext, id: NodeId, x: ValueId, op: &str, list: Vec<i64>) -> Patch {
    let old = graph.node(id);
    let mut node = Node { name: old.name.clone(), rank: old.rank, ..Node::new(OpId::onnx(op)) };
    let mut patch = Patch::default();
    let mut inputs = vec![Some(x.into())];
    let y = graph.output(id, 0);
    let name = y.map_or("", |y| graph.name(y));
    if op == "Identity" {
        // Between a graph input and a graph output.
    } else if op == "Reshape" || cx.opset >= 13 {
        let hint = if op == "Reshape" { "shape" } else { "axes" };
        inputs.push(Some(patch.constant(&format!("{name}_{hint}"), Tensor::from_i64(&[list.len()], &list))));
    } else {
        node.set("axes", AttributeValue::Ints(list));
    }
    let new = patch.node(node, &inputs, name, y.and_then(|y| graph.ty(y).cloned()));
    if let Some(y) = y {
        patch.replace(y, new);
    }
    patch
}
