//! Of two clamps in a row, the first or the second goes.

use super::support::{bypass, elem, exact_rule, maker};
use crate::ir::{DType, Graph, NodeId, Tensor};
use crate::passes::{Patch, RuleContext};

/// Before: `c = Clip(x, a, b)`, `y = Clip(c, p, q)`. After: `y = Clip(x, clip(a), clip(b))` with the bounds clamped to
/// `[p, q]`. A Relu is a Clip from 0 upwards; at least one of the two must be a Clip. A Relu of values that are not
/// negative goes without more.
///
/// When: operator set 11 or newer; the bounds are finite constants, the lower no higher than the upper, and no two
/// that are compared are zeros of different sign; `c` has no other use (unless the second goes).
/// Why it is equal: both are monotonous and constant outside their bounds. A missing bound is the type's
/// largest value, which is not infinity, and stays missing. NaN, and the sign of 0 at a bound of 0, go through the same two
/// comparisons, `max` with the lower bound and `min` with the upper (specification: Relu, Clip).
pub struct EliminateClip;

exact_rule!(EliminateClip, "eliminate_clip", ["Clip", "Relu"], apply);

fn apply(graph: &Graph, id: NodeId, cx: &RuleContext) -> Option<Patch> {
    if cx.opset < 11 {
        return None;
    }
    let mid = graph.input(id, 0)?;
    let first = maker(graph, mid, &["Clip", "Relu"])?;
    let is_relu = |node: NodeId| graph.node(node).op.is("Relu");
    if is_relu(id) && is_relu(first) {
        return None; // has a rule of its own
    }
    let x = graph.input(first, 0)?;
    let of = elem(graph, x)?;
    let (inner, outer) = (Bounds::of(graph, cx, first, of)?, Bounds::of(graph, cx, id, of)?);
    if is_relu(id)
        && inner.low.as_ref().is_some_and(|low| low.value >= 0.0 && low.value.is_sign_positive())
        && let Some(patch) = bypass(graph, id, mid)
    {
        return Some(patch);
    }
    if graph.only_use(mid)?.node != id {
        return None;
    }
    let low = match (inner.low, outer.low.clone()) {
        (Some(a), p) => Some(outer.clamp(a, p)?),
        (None, p) => p,
    };
    let high = match (inner.high, outer.high.clone()) {
        (Some(b), q) => Some(outer.clamp_high(b, q)?),
        (None, q) => q,
    };
    let clip = if is_relu(id) { first } else { id };
    let mut node = graph.node(clip).clone();
    node.name = graph.node(id).name.clone();
    node.rank = graph.node(id).rank;
    let y = graph.output(id, 0)?;
    let mut patch = Patch::default();
    let mut bound =
        |side: &str, b: Option<Bound>| b.map(|b| patch.constant(&format!("{}_{side}", graph.name(y)), b.tensor));
    let mut inputs = vec![Some(x.into()), bound("min", low), bound("max", high)];
    while inputs.last().is_some_and(Option::is_none) {
        inputs.pop();
    }
    let new = patch.node(node, &inputs, graph.name(y), graph.ty(y).cloned());
    patch.replace(y, new);
    Some(patch)
}

/// A finite bound.
#[derive(Clone)]
struct Bound {
    value: f64,
    tensor: Tensor,
}

#[derive(Clone)]
struct Bounds {
    low: Option<Bound>,
    high: Option<Bound>,
}

impl Bounds {
    /// The bounds of a Clip or Relu on values of type `of`; `None` where they are not known or not in order.
    fn of(graph: &Graph, cx: &RuleContext, id: NodeId, of: DType) -> Option<Self> {
        if graph.node(id).op.is("Relu") {
            let bytes = vec![0; of.bits() / 8];
            let zero = Bound { value: 0.0, tensor: Tensor::raw(of, &[], bytes) };
            return Some(Self { low: Some(zero).filter(|_| is_exact_in_f64(of)), high: None })
                .filter(|b| b.low.is_some());
        }
        let bound = |slot| match graph.input(id, slot) {
            None => Some(None),
            Some(v) => Bound::read(cx.constant(graph, v)?, of).map(Some),
        };
        let bounds = Self { low: bound(1)?, high: bound(2)? };
        let in_order = match (&bounds.low, &bounds.high) {
            (Some(low), Some(high)) => low.value <= high.value && low.agrees_with(high),
            _ => true,
        };
        in_order.then_some(bounds)
    }

    /// The inner lower bound `a` clamped to these bounds, of which `low` is the lower.
    fn clamp(&self, a: Bound, low: Option<Bound>) -> Option<Bound> {
        let raised = match low {
            Some(p) if p.agrees_with(&a) => {
                if p.value > a.value {
                    p
                } else {
                    a
                }
            }
            Some(_) => return None,
            None => a,
        };
        match &self.high {
            Some(q) if !q.agrees_with(&raised) => None,
            Some(q) if q.value < raised.value => Some(q.clone()),
            _ => Some(raised),
        }
    }

    /// The inner upper bound `b` clamped to these bounds, of which `high` is the upper.
    fn clamp_high(&self, b: Bound, high: Option<Bound>) -> Option<Bound> {
        let lowered = match high {
            Some(q) if q.agrees_with(&b) => {
                if q.value < b.value {
                    q
                } else {
                    b
                }
            }
            Some(_) => return None,
            None => b,
        };
        match &self.low {
            Some(p) if !p.agrees_with(&lowered) => None,
            Some(p) if p.value > lowered.value => Some(p.clone()),
            _ => Some(lowered),
        }
    }
}

impl Bound {
    fn read(t: &Tensor, of: DType) -> Option<Self> {
        if t.dtype != of || t.len() != 1 || !is_exact_in_f64(of) {
            return None;
        }
        let value = match of {
            DType::F32 | DType::F16 => f64::from(t.scalar_f32()?),
            DType::F64 => f64::from_le_bytes(t.bytes().ok()?.as_ref().try_into().ok()?),
            _ => t.scalar_i64()? as f64,
        };
        value.is_finite().then(|| Self { value, tensor: t.clone() })
    }

    /// Whether comparing the two leaves no doubt: they are not zeros of different sign.
    fn agrees_with(&self, other: &Self) -> bool {
        self.value != other.value || self.value.to_bits() == other.value.to_bits()
    }
}

/// Whether f64 holds every value of the type.
fn is_exact_in_f64(t: DType) -> bool {
    use DType::*;
    matches!(t, F16 | F32 | F64 | I8 | U8 | I16 | U16 | I32 | U32)
}
