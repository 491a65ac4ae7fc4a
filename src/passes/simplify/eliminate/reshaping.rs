//! Operators that give the elements another shape and keep their order, seen as one kind.

use super::eliminate_reshape::copies_zero;
use super::eliminate_transpose::permutation;
use super::support::{Listed, axes, int_or, shape};
use crate::ir::{Dim, Graph, NodeId};
use crate::passes::RuleContext;

/// The operators that may be a [`Reshaping`].
pub(super) const RESHAPING: [&str; 5] = ["Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"];

/// One dimension of the output, as the node asks for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// The size of this axis of the input.
    Copy(usize),
    /// A number.
    Literal(i64),
    /// What is left of the elements: the -1 of Reshape.
    Rest,
}

/// The output's dimensions; `None` where the node moves elements or asks for what is not known.
pub(super) fn parts(graph: &Graph, cx: &RuleContext, id: NodeId) -> Option<Vec<Part>> {
    let input = shape(graph, graph.input(id, 0)?);
    match &*graph.node(id).op.op_type {
        "Reshape" => reshape(graph, cx, id),
        "Flatten" => flatten(input?, int_or(graph, id, "axis", 1)?),
        "Squeeze" => squeeze(input?, &Listed::of(graph, cx, id, ("axes", 1, 13))),
        "Unsqueeze" => unsqueeze(input?.len(), &Listed::of(graph, cx, id, ("axes", 1, 13)).ints()?),
        "Transpose" => transpose(input?, &permutation(graph, id)?),
        _ => None,
    }
}

fn reshape(graph: &Graph, cx: &RuleContext, id: NodeId) -> Option<Vec<Part>> {
    let target = Listed::of(graph, cx, id, ("shape", 1, 5)).ints()?;
    let copies = copies_zero(graph, cx, id)?;
    let part = |(k, n): (usize, &i64)| match n {
        0 if copies => Some(Part::Copy(k)),
        -1 => Some(Part::Rest),
        n => (*n >= 0).then_some(Part::Literal(*n)),
    };
    target.iter().enumerate().map(part).collect()
}

fn flatten(input: &[Dim], at: i64) -> Option<Vec<Part>> {
    let rank = input.len() as i64;
    let at = usize::try_from(if at < 0 { at.checked_add(rank)? } else { at }).ok()?;
    let (front, back) = (input.get(..at)?, input.get(at..)?);
    let side = |dims: &[Dim], first: usize| match dims {
        [_] => Some(Part::Copy(first)),
        dims => {
            let sizes = dims.iter().map(|d| if let Dim::Known(n) = d { Some(*n) } else { None });
            sizes.into_iter().try_fold(1i64, |all, n| all.checked_mul(n?)).map(Part::Literal)
        }
    };
    match (side(front, 0), side(back, at)) {
        (Some(a), Some(b)) => Some(vec![a, b]),
        // A size that may be 0 beside it would leave -1 undefined.
        (None, Some(Part::Literal(n))) if n > 0 => Some(vec![Part::Rest, Part::Literal(n)]),
        (Some(Part::Literal(n)), None) if n > 0 => Some(vec![Part::Literal(n), Part::Rest]),
        _ => None,
    }
}

fn squeeze(input: &[Dim], removed: &Listed) -> Option<Vec<Part>> {
    let removed: Vec<usize> = match removed {
        Listed::Absent if input.iter().all(|d| d.known().is_some()) => {
            (0..input.len()).filter(|&k| input[k] == Dim::Known(1)).collect()
        }
        Listed::Absent => return None,
        given => axes(&given.ints()?, input.len())?,
    };
    Some((0..input.len()).filter(|k| !removed.contains(k)).map(Part::Copy).collect())
}

fn unsqueeze(rank: usize, added: &[i64]) -> Option<Vec<Part>> {
    let added = axes(added, rank + added.len())?;
    let mut old = 0..rank;
    let part = |k| if added.contains(&k) { Some(Part::Literal(1)) } else { old.next().map(Part::Copy) };
    (0..rank + added.len()).map(part).collect()
}

/// A Transpose that moves axes of size 1 only.
fn transpose(input: &[Dim], perm: &[usize]) -> Option<Vec<Part>> {
    if perm.len() != input.len() {
        return None;
    }
    let one = |a: usize| input[a] == Dim::Known(1);
    let others = || perm.iter().filter(|&&a| !one(a));
    let in_order = others().zip(others().skip(1)).all(|(a, b)| a < b);
    in_order.then(|| perm.iter().map(|&a| if one(a) { Part::Literal(1) } else { Part::Copy(a) }).collect())
}

/// The dimensions of `outer` after `inner` in terms of the input of `inner`, if at most one of them is open.
pub(super) fn after(outer: &[Part], inner: &[Part]) -> Option<Vec<Part>> {
    let part = |p: &Part| if let Part::Copy(k) = p { inner.get(*k).copied() } else { Some(*p) };
    let joined: Vec<Part> = outer.iter().map(part).collect::<Option<_>>()?;
    let open = joined.iter().filter(|p| **p == Part::Rest).count();
    // The -1 of the inner node was worked out beside other sizes; it may be worked out anew beside numbers only.
    let settled = outer.contains(&Part::Rest) || joined.iter().all(|p| matches!(p, Part::Rest | Part::Literal(1..)));
    (open == 0 || (open == 1 && settled)).then_some(joined)
}
