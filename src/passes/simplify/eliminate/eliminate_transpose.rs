//! Transposes that move nothing, and the first of two, go.

use super::support::{bypass, exact_rule, maker, shape};
use crate::ir::{Dim, Graph, Node, NodeId, OpId};
use crate::passes::{Patch, RuleContext};

/// Before: `y = Transpose(x)` whose elements stay in order and whose shape stays. After: uses of `y` use `x`. And before:
/// `t = Transpose<perm = p>(x)`, `y = Transpose<perm = q>(t)`. After: `y = Transpose<perm = p[q]>(x)`.
///
/// When: the permutation is the identity, or only swaps axes of size 1. Of two: both permutations are written out or the
/// rank is known; they need not cancel.
/// Why it is equal: moving an axis of size 1 moves no element; axis `k` of `y` is axis `q[k]` of `t`, which is axis
/// `p[q[k]]` of `x`.
pub struct EliminateTranspose;

exact_rule!(EliminateTranspose, "eliminate_transpose", ["Transpose"], apply);

fn apply(graph: &Graph, id: NodeId, _: &RuleContext) -> Option<Patch> {
    let x = graph.input(id, 0)?;
    let perm = permutation(graph, id)?;
    if keeps_order(&perm, shape(graph, x))
        && let Some(patch) = bypass(graph, id, x)
    {
        return Some(patch);
    }
    let first = maker(graph, x, &["Transpose"])?;
    let source = graph.input(first, 0)?;
    let before = permutation(graph, first)?;
    if before.len() != perm.len() {
        return None;
    }
    let joined: Vec<usize> = perm.iter().map(|&k| before[k]).collect();
    if keeps_order(&joined, shape(graph, source))
        && let Some(patch) = bypass(graph, id, source)
    {
        return Some(patch);
    }
    let y = graph.output(id, 0)?;
    let mut node = graph.node(id).clone();
    if keeps_order(&joined, shape(graph, source)) {
        // Between a graph input and a graph output.
        node = Node { name: node.name, rank: node.rank, ..Node::new(OpId::onnx("Identity")) };
    } else {
        node.set("perm", joined.iter().map(|&k| k as i64).collect::<Vec<_>>().into());
    }
    let mut patch = Patch::default();
    let new = patch.node(node, &[Some(source.into())], graph.name(y), graph.ty(y).cloned());
    patch.replace(y, new);
    Some(patch)
}

/// The permutation of a Transpose; `None` where it is not known or none.
pub(super) fn permutation(graph: &Graph, id: NodeId) -> Option<Vec<usize>> {
    let node = graph.node(id);
    if node.attribute("perm").is_none() {
        let rank = shape(graph, graph.input(id, 0)?)?.len();
        return Some((0..rank).rev().collect());
    }
    let perm = node.ints("perm")?;
    super::support::axes(perm, perm.len()).filter(|_| perm.iter().all(|&a| a >= 0))
}

/// Whether the permutation leaves the elements in order and the shape as it is.
fn keeps_order(perm: &[usize], shape: Option<&[Dim]>) -> bool {
    if perm.iter().enumerate().all(|(k, &a)| k == a) {
        return true;
    }
    let Some(shape) = shape.filter(|s| s.len() == perm.len()) else { return false };
    let one = |a: usize| shape[a] == Dim::Known(1);
    // An axis that stays, or one of size 1 in the place of another.
    perm.iter().enumerate().all(|(k, &a)| k == a || (one(a) && one(k)))
}
