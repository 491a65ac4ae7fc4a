//! Computed targets of Reshape become constants.

use super::eliminate_reshape::copies_zero;
use super::support::{dims, equal, exact_rule, maker, shape};
use crate::ir::{AttributeValue, Dim, Graph, NodeId, Tensor, ValueId};
use crate::passes::{Patch, RuleContext};

/// Before: `y = Reshape(x, s)`, where `s` is computed from shapes, for example `[batch, seq, -1, 32]`. After:
/// `y = Reshape(x, [0, 0, -1, 32])`.
///
/// When: `s` is not a constant and each element is a known number, or the size of the same axis of `x` (which 0 copies),
/// or is the only one that is neither while all others are known and not 0 (it becomes -1). With `allowzero` no element
/// may be a literal 0.
/// If that fails and `x` is a Reshape to a vector, the sizes may be those of what the vector was before.
/// Why it is equal: equal symbols are equal sizes, and where that size is 0, the computed 0 copies it as well. An element
/// that becomes -1 is what the number of elements, which Reshape keeps, divided by the other elements is; were one
/// of those a 0, the division could not be done, so a copied size beside it will not do.
pub struct FoldReshapeTarget;

exact_rule!(FoldReshapeTarget, "fold_reshape_target", ["Reshape"], apply);

fn apply(graph: &Graph, id: NodeId, cx: &RuleContext) -> Option<Patch> {
    let (x, s) = (graph.input(id, 0)?, graph.input(id, 1)?);
    if cx.opset < 5 || cx.constant(graph, s).is_some() {
        return None;
    }
    let copies = copies_zero(graph, cx, id)?;
    let wanted = dims(graph, cx, s)?;
    let (x, target) = match constant_target(&wanted, shape(graph, x), copies) {
        Some(target) => (x, target),
        None => behind_flat(graph, x, &wanted)?,
    };
    let y = graph.output(id, 0)?;
    let mut node = graph.node(id).clone();
    if !copies && target.contains(&0) {
        node.set("allowzero", AttributeValue::Int(0));
    }
    let mut patch = Patch::default();
    let constant = patch.constant(&format!("{}_shape", graph.name(y)), Tensor::from_i64(&[target.len()], &target));
    let new = patch.node(node, &[Some(x.into()), Some(constant)], graph.name(y), graph.ty(y).cloned());
    patch.replace(y, new);
    Some(patch)
}

/// The target in terms of what a Reshape to a vector had before it. Where a size is 0, the vector is empty: a computed 0
/// in front copies its 0 as well, and one behind has nothing to copy, so that execution fails.
fn behind_flat(graph: &Graph, x: ValueId, wanted: &[Dim]) -> Option<(ValueId, Vec<i64>)> {
    let first = maker(graph, x, &["Reshape"]).filter(|_| shape(graph, x).is_some_and(|s| s.len() == 1))?;
    let source = graph.input(first, 0)?;
    let numbers = constant_target(wanted, shape(graph, source), true)?;
    let only_sizes = wanted.iter().all(|d| matches!(d, Dim::Known(1..) | Dim::Sym(_)));
    (only_sizes && !numbers.contains(&-1)).then_some((source, numbers))
}

/// The target in numbers; `copies`: whether a computed 0 copies a size.
fn constant_target(target: &[Dim], shape: Option<&[Dim]>, copies: bool) -> Option<Vec<i64>> {
    let literals_fit = target.iter().all(|d| !matches!(d, Dim::Known(n) if *n < -1 || (*n == 0 && !copies)));
    if !literals_fit {
        return None;
    }
    let copied = |k: usize, d: &Dim| shape.and_then(|s| s.get(k)).is_some_and(|x| equal(x, d));
    let number = |(k, d): (usize, &Dim)| match d {
        Dim::Known(n) => Some(*n),
        d => copied(k, d).then_some(0),
    };
    let numbers: Vec<Option<i64>> = target.iter().enumerate().map(number).collect();
    if let Some(all) = numbers.iter().copied().collect() {
        return Some(all);
    }
    // One element is left over: -1, if the others cannot be 0.
    let others = || target.iter().zip(&numbers).filter(|(_, n)| n.is_some());
    let nonzero = others().all(|(d, _)| matches!(d, Dim::Known(n) if *n > 0));
    (nonzero && others().count() + 1 == target.len()).then(|| numbers.iter().map(|n| n.unwrap_or(-1)).collect())
}
