//! Arithmetic with numpy's broadcasting: Add, Sub, Mul, Div, Pow, Mod, PRelu, the bitwise operations, and the variadic
//! Sum, Mean, Min and Max.

use crate::error::Result;
use crate::ir::Dim;
use crate::ops::rules::{DATA_LIMIT, add_dims, broadcast_inputs, is_f32, mul_dims, output, same_as, vector, without};
use crate::ops::spec::{InferContext, Inferred, OpSpec, QuantRole, Schema, Upgrade, op};

/// The output has the first input's element type and the broadcast shape of all.
pub struct Arithmetic;

impl OpSpec for Arithmetic {
    fn schemas(&self) -> &'static [Schema] {
        &const {
            [
                op("Add", &[1, 6, 7, 13, 14]),
                op("Sub", &[1, 6, 7, 13, 14]),
                op("Mul", &[1, 6, 7, 13, 14]),
                op("Div", &[1, 6, 7, 13, 14]),
                op("Pow", &[1, 7, 12, 13, 15]),
                op("Mod", &[10, 13]),
                op("PRelu", &[1, 6, 7, 9, 16]),
                op("BitShift", &[11]),
                op("BitwiseAnd", &[18]),
                op("BitwiseOr", &[18]),
                op("BitwiseXor", &[18]),
                op("Sum", &[1, 6, 8, 13]),
                op("Mean", &[1, 6, 8, 13]),
                op("Min", &[1, 6, 8, 12, 13]),
                op("Max", &[1, 6, 8, 12, 13]),
            ]
        }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        // Before 7 only the second input was stretched, along an axis that an attribute named; and Sum, Min and Max
        // (8) did not broadcast.
        if cx.opset < 7 {
            return same_as(cx, 0);
        }
        // PRelu stretches the slope only, but to the same effect.
        let mut out = output(cx.elem(0), broadcast_inputs(cx, 0..cx.inputs.len())?)?;
        if let [inferred] = &mut out[..] {
            inferred.data = data(cx);
        }
        Ok(out)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        match &*cx.node.op.op_type {
            "Add" | "Mul" if is_f32(cx, 0) => QuantRole::Elementwise { inputs: vec![0, 1] },
            _ => QuantRole::Opaque,
        }
    }

    fn upgrade(&self, cx: &InferContext, _to: i64) -> Upgrade {
        // Without the attribute, and with equal shapes, it means the same today.
        let legacy = cx.node.attribute("broadcast").is_some() || cx.node.attribute("axis").is_some();
        if cx.opset < 7 && (legacy || &*cx.node.op.op_type == "PRelu") {
            return Upgrade::Impossible("its broadcasting before operator set 7 is not supported".into());
        }
        // A hint to reuse memory, dropped in 6.
        if cx.node.attribute("consumed_inputs").is_some() {
            let node = Box::new(without(cx.node, &["consumed_inputs"]));
            return Upgrade::Changed { node, new_inputs: vec![] };
        }
        Upgrade::Same
    }
}

/// Shape arithmetic on vectors of equal length, or a vector and a single element.
fn data(cx: &InferContext) -> Option<Vec<Dim>> {
    if cx.inputs.len() != 2 || !cx.elem(0)?.is_int() {
        return None;
    }
    let op: fn(&Dim, &Dim) -> Dim = match &*cx.node.op.op_type {
        "Add" => add_dims,
        "Sub" => subtract,
        "Mul" => mul_dims,
        "Div" => divide,
        _ => return None,
    };
    let (a, b) = (vector(cx, 0)?, vector(cx, 1)?);
    let len = if a.len() == 1 { b.len() } else { a.len() };
    if len > DATA_LIMIT || (a.len() != len && a.len() != 1) || (b.len() != len && b.len() != 1) {
        return None;
    }
    let pick = |v: &'_ [Dim], i: usize| v[if v.len() == 1 { 0 } else { i }].clone();
    Some((0..len).map(|i| op(&pick(&a, i), &pick(&b, i))).collect())
}

fn subtract(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (x, Dim::Known(0)) => x.clone(),
        (Dim::Known(x), Dim::Known(y)) => x.checked_sub(*y).map_or(Dim::Unknown, Dim::Known),
        (Dim::Sym(x), Dim::Sym(y)) if x == y => Dim::Known(0),
        _ => Dim::Unknown,
    }
}

/// Integer division truncates (specification: Div).
fn divide(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (x, Dim::Known(1)) => x.clone(),
        (Dim::Known(x), Dim::Known(y)) => x.checked_div(*y).map_or(Dim::Unknown, Dim::Known),
        _ => Dim::Unknown,
    }
}
