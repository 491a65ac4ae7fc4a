//! Casts that convert nothing, and the first of two casts, go.

use super::support::{bypass, elem, exact_rule, maker};
use crate::ir::{DType, Graph, NodeId};
use crate::passes::{Patch, RuleContext};

/// Before: `y = Cast<to = T>(x)` with `x` of type T. After: uses of `y` use `x`. And before: `m = Cast(x)`,
/// `y = Cast(m)`. After: `y = Cast(x)`. The same for CastLike.
///
/// When: the types are known. Of two casts: the first loses nothing (it widens), and the second does with the wider value
/// what it would do with the narrower one: no conversion of a float to an integer, whose result out of range is not
/// defined, and none to f16 by way of f64, which engines round twice.
/// Why it is equal: the second cast sees the same value. To a narrower integer, both cut the same low bits.
pub struct EliminateCast;

exact_rule!(EliminateCast, "eliminate_cast", ["Cast", "CastLike"], apply);

fn apply(graph: &Graph, id: NodeId, _: &RuleContext) -> Option<Patch> {
    let x = graph.input(id, 0)?;
    let to = elem(graph, graph.output(id, 0)?)?;
    let mid = elem(graph, x)?;
    if mid == to {
        return bypass(graph, id, x);
    }
    let first = maker(graph, x, &["Cast", "CastLike"])?;
    let source = graph.input(first, 0)?;
    let from = elem(graph, source)?;
    if !is_lossless(from, mid) || !is_same_conversion(from, mid, to) {
        return None;
    }
    if from == to
        && let Some(patch) = bypass(graph, id, source)
    {
        return Some(patch);
    }
    let mut patch = Patch::default();
    patch.set_input(id, 0, Some(source.into()));
    Some(patch)
}

/// Whether an integer type is signed, and its bits; `None` for other types and those under 8 bits.
fn integer(t: DType) -> Option<(bool, usize)> {
    use DType::*;
    let signed = matches!(t, I8 | I16 | I32 | I64);
    (signed || matches!(t, U8 | U16 | U32 | U64)).then_some((signed, t.bits()))
}

/// Binary digits of a float type's significand.
fn digits(t: DType) -> Option<usize> {
    Some(match t {
        DType::F16 => 11,
        DType::BF16 => 8,
        DType::F32 => 24,
        DType::F64 => 53,
        _ => return None,
    })
}

/// Whether every value of `from` is one of `to`.
fn is_lossless(from: DType, to: DType) -> bool {
    if from == to {
        return true;
    }
    match (integer(from), integer(to), digits(from), digits(to)) {
        _ if from == DType::Bool => integer(to).is_some() || digits(to).is_some(),
        (Some((signed, bits)), Some((to_signed, to_bits)), ..) => to_bits > bits && (to_signed || !signed),
        (Some((signed, bits)), _, _, Some(digits)) => bits - usize::from(signed) <= digits,
        (_, _, Some(_), Some(digits)) => digits == 53 || (digits == 24 && from != DType::F64),
        _ => false,
    }
}

/// Whether casting a value of `from` to `to` gives the same directly as by way of the wider `mid`.
fn is_same_conversion(from: DType, mid: DType, to: DType) -> bool {
    let standard = |t| t == DType::Bool || integer(t).is_some() || (digits(t).is_some() && t != DType::BF16);
    if from == to || is_lossless(from, to) {
        return true;
    }
    if !standard(from) || !standard(to) {
        return false;
    }
    let small = from == DType::Bool || integer(from).is_some_and(|(_, bits)| bits <= 16);
    match (integer(from), integer(mid), integer(to)) {
        _ if to == DType::Bool => true,
        _ if to == DType::F16 => small || from == DType::F32 && mid == DType::F32,
        (Some(_), Some(_), Some(_)) => true,
        (_, _, Some(_)) => from == DType::Bool,
        _ => true,
    }
}
