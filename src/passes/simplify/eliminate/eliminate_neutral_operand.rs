//! Arithmetic with a neutral element goes.

use super::support::{bypass, elem, exact_rule, keeps_shape};
use crate::ir::{DType, Graph, NodeId, Tensor, ValueId};
use crate::passes::{Patch, RuleContext};

/// Before: `y = op(x, c)`, where every element of the constant `c` is neutral. After: uses of `y` use `x`.
///
/// Neutral are 1 for Mul, Div and float Pow; 0 for Sub; 0 for Add of integers, -0 for Add of floats; true for And and
/// Equal, false for Or and Xor; 0 for BitwiseOr, BitwiseXor and BitShift, all ones for BitwiseAnd. The operand may also stand first
/// where the operator commutes.
///
/// When: operator set 7 or newer (numpy's broadcasting), the type of `x` is known, and `c` does not stretch `x`.
/// Why it is equal: `x + 0` is not `x` for a float -0, `x - 0` and `x + (-0)` are; all keep NaN and infinities.
pub struct EliminateNeutralOperand;

exact_rule!(
    EliminateNeutralOperand,
    "eliminate_neutral_operand",
    [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "And",
        "Or",
        "Xor",
        "Equal",
        "BitwiseAnd",
        "BitwiseOr",
        "BitwiseXor",
        "BitShift"
    ],
    apply
);

fn apply(graph: &Graph, id: NodeId, cx: &RuleContext) -> Option<Patch> {
    if cx.opset < 7 {
        return None;
    }
    let (a, b) = (graph.input(id, 0)?, graph.input(id, 1)?);
    let commutes = !["Sub", "Div", "Pow", "BitShift"].contains(&&*graph.node(id).op.op_type);
    let is_neutral = |x, c| is_neutral(graph, id, cx, x, c) == Some(true);
    if is_neutral(a, b) {
        return bypass(graph, id, a);
    }
    (commutes && is_neutral(b, a)).then(|| bypass(graph, id, b))?
}

fn is_neutral(graph: &Graph, id: NodeId, cx: &RuleContext, x: ValueId, c: ValueId) -> Option<bool> {
    let constant = cx.constant(graph, c)?;
    let of = elem(graph, x)?;
    let op = &*graph.node(id).op.op_type;
    if constant.dtype != of && op != "Pow" {
        return None;
    }
    let element = neutral(op, of, constant.dtype)?;
    Some(keeps_shape(graph, x, &constant.dims) && is_filled_with(constant, &element))
}

/// Bytes of the neutral element of `op` on values of type `of`, in the type of the constant.
fn neutral(op: &str, of: DType, constant: DType) -> Option<Vec<u8>> {
    let bytes = of.bits() / 8;
    let is_integer = of.is_int() && of.bits() >= 8;
    match op {
        "Mul" | "Div" if is_integer || of.is_float() => one(of),
        "Pow" if of.is_float() => one(constant),
        "Add" if of.is_float() => negative_zero(of),
        "Sub" if is_integer || of.is_float() => Some(vec![0; bytes]),
        "Add" | "BitwiseOr" | "BitwiseXor" | "BitShift" if is_integer => Some(vec![0; bytes]),
        "BitwiseAnd" if is_integer => Some(vec![0xff; bytes]),
        "And" | "Equal" if of == DType::Bool => Some(vec![1]),
        "Or" | "Xor" if of == DType::Bool => Some(vec![0]),
        _ => None,
    }
}

fn one(t: DType) -> Option<Vec<u8>> {
    Some(match t {
        DType::F32 => 1f32.to_le_bytes().to_vec(),
        DType::F64 => 1f64.to_le_bytes().to_vec(),
        DType::F16 => half::f16::ONE.to_le_bytes().to_vec(),
        DType::BF16 => half::bf16::ONE.to_le_bytes().to_vec(),
        _ if t.is_int() && t.bits() >= 8 => 1u64.to_le_bytes()[..t.bits() / 8].to_vec(),
        _ => return None,
    })
}

fn negative_zero(t: DType) -> Option<Vec<u8>> {
    let mut bytes = vec![0; t.bits() / 8];
    *bytes.last_mut()? = 0x80;
    Some(bytes)
}

/// Whether the tensor has elements and all of them are these bytes.
fn is_filled_with(t: &Tensor, element: &[u8]) -> bool {
    !t.is_empty() && t.bytes().is_ok_and(|bytes| bytes.chunks_exact(element.len()).all(|x| x == element))
}
