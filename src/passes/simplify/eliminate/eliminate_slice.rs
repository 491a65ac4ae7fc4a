//! Slice over everything goes.

use super::support::{Listed, axes, axis, bypass, equal, exact_rule, ints, shape};
use crate::ir::{Dim, Graph, NodeId};
use crate::passes::{Patch, RuleContext};

/// Before: `y = Slice(x, starts, ends, axes, steps)` that selects all of every axis. After: uses of `y` use `x`.
///
/// When: each step is 1; each start is 0, or at or before the first element counted from the back; each end is at or
/// behind the last element: the size of the axis (a symbol for a symbol will do), more, or at least 2^31 - 1, which exporters
/// write for "to the end".
/// Why it is equal: every element is selected, in order.
pub struct EliminateSlice;

exact_rule!(EliminateSlice, "eliminate_slice", ["Slice"], apply);

const TO_THE_END: i64 = i32::MAX as i64;

fn apply(graph: &Graph, id: NodeId, cx: &RuleContext) -> Option<Patch> {
    let x = graph.input(id, 0)?;
    let list = |name, slot| Listed::of(graph, cx, id, (name, slot, 10));
    let (Listed::Given(starts), Listed::Given(ends)) = (list("starts", 1), list("ends", 2)) else { return None };
    if starts.len() != ends.len() {
        return None;
    }
    let sliced: Vec<i64> = match list("axes", 3) {
        Listed::Absent => (0..starts.len() as i64).collect(),
        given => given.ints()?,
    };
    if let Some(steps) = graph.input(id, 4).filter(|_| cx.opset >= 10)
        && ints(graph, cx, steps)?.iter().any(|&s| s != 1)
    {
        return None;
    }
    // Without the rank, an axis can still be sliced from 0 to the end.
    let shape = shape(graph, x);
    if let Some(shape) = shape {
        axes(&sliced, shape.len())?;
    }
    if sliced.len() != starts.len() {
        return None;
    }
    let whole = sliced.iter().zip(starts.iter().zip(&ends)).all(|(&a, (start, end))| {
        let size = shape.and_then(|s| s.get(axis(a, s.len())?)).unwrap_or(&Dim::Unknown);
        starts_at_front(start, size) && ends_behind(end, size)
    });
    whole.then(|| bypass(graph, id, x))?
}

fn starts_at_front(start: &Dim, size: &Dim) -> bool {
    match (start, size) {
        (Dim::Known(0), _) => true,
        (Dim::Known(s), Dim::Known(n)) => s.checked_add(*n).is_some_and(|first| first <= 0),
        (Dim::Known(s), _) => *s <= -TO_THE_END,
        _ => false,
    }
}

fn ends_behind(end: &Dim, size: &Dim) -> bool {
    match (end, size) {
        (Dim::Known(e), Dim::Known(n)) => e >= n,
        (Dim::Known(e), _) => *e >= TO_THE_END,
        _ => equal(end, size),
    }
}
