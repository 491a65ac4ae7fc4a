//! Arithmetic with numpy's broadcasting: Add, Sub, Mul, Div, Pow, Mod, PRelu, the bitwise operations, and the variadic
//! Sum, Mean, Min and Max.

use crate::error::{Error, Result};
use crate::ir::Dim;
use crate::math::{Array, View, binary, broadcast_dims, reduce_to};
use crate::ops::axes::{AxisLinks, LinkContext, broadcast_links};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::legacy::{broadcast_attributes, stretched};
use crate::ops::rules::{DATA_LIMIT, add_dims, broadcast_inputs, is_f32, mul_dims, output, same_as, vector};
use crate::ops::spec::{ChannelRole, InferContext, Inferred, OpSpec, QuantRole, Schema, Upgrade, op};

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

    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        // The first forms stretched the second input only, along an axis that an attribute named.
        let supported = matches!(
            &*cx.node.op.op_type,
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "PRelu" | "Sum" | "Mean" | "Min" | "Max"
        );
        if cx.opset < 7 || !supported { None } else { rule!(forward, backward) }
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        match &*cx.node.op.op_type {
            "Add" | "Mul" if is_f32(cx, 0) => QuantRole::Elementwise { inputs: vec![0, 1] },
            "Min" if is_f32(cx, 0) && cx.inputs.len() == 2 && cx.constant(1).is_some() => QuantRole::Bound { input: 0 },
            _ => QuantRole::Opaque,
        }
    }

    fn channels(&self, cx: &InferContext, axis: usize) -> ChannelRole {
        let rank = |k| cx.shape(k).map(<[Dim]>::len);
        match &*cx.node.op.op_type {
            // Slopes multiply what is negative, whatever their own sign.
            "PRelu" => ChannelRole::same(axis),
            // Of constants, the caller sees to their factors.
            "Add" | "Sub"
                if rank(0).is_some() && (rank(0) == rank(1) || cx.constant(0).or(cx.constant(1)).is_some()) =>
            {
                ChannelRole::Passes { inputs: vec![0, 1], axis, repeat: 1 }
            }
            _ => ChannelRole::Barrier,
        }
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        match &*cx.node.op.op_type {
            _ if cx.opset >= 7 || to < 7 => Upgrade::Same,
            "PRelu" => slope_per_channel(cx, to),
            _ => broadcast_attributes(cx, to),
        }
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        // Before operator set 7 attributes say how the second input is stretched.
        if cx.cx.opset < 7 {
            return None;
        }
        broadcast_links(cx, 0..cx.cx.inputs.len())
    }
}

/// Before operator set 7 a slope with several elements has one per channel, the axis after the first.
fn slope_per_channel(cx: &InferContext, to: i64) -> Upgrade {
    match (cx.shape(0), cx.shape(1)) {
        (_, Some([] | [Dim::Known(1)])) => Upgrade::Same,
        (Some(x), Some([Dim::Known(_)])) if x.len() >= 2 => stretched(cx.node.clone(), 1, x.len() - 2, to),
        (Some(x), Some(slope)) if x.len() == slope.len() => Upgrade::Same,
        _ => Upgrade::Impossible("the shapes of its inputs are not known".into()),
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
        "Mod" => modulo,
        "Min" => |a, b| extreme(a, b, i64::min),
        "Max" => |a, b| extreme(a, b, i64::max),
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

/// Integer remainders have the divisor's sign (specification: Mod with `fmod` 0); where signs differ from that of sizes,
/// nothing is said.
fn modulo(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (_, Dim::Known(1)) => Dim::Known(0),
        (Dim::Known(x), Dim::Known(y)) if *x >= 0 && *y > 0 => Dim::Known(x % y),
        _ => Dim::Unknown,
    }
}

fn extreme(a: &Dim, b: &Dim, pick: fn(i64, i64) -> i64) -> Dim {
    match (a, b) {
        (Dim::Known(x), Dim::Known(y)) => Dim::Known(pick(*x, *y)),
        (x, y) if x == y && *x != Dim::Unknown => x.clone(),
        _ => Dim::Unknown,
    }
}

/// What a binary operation computes, and its two partial derivatives times the gradient of the output.
type Partials<T> = (fn(T, T) -> T, fn(T, T, T) -> T, fn(T, T, T) -> T);

fn partials<T: Element>(op: &str) -> Result<Partials<T>> {
    Ok(match op {
        "Sub" => (|a, b| a - b, |_, _, d| d, |_, _, d| -d),
        "Mul" => (|a, b| a * b, |_, b, d| d * b, |a, _, d| d * a),
        "Div" => (|a, b| a / b, |_, b, d| d / b, |a, b, d| -d * a / (b * b)),
        "Pow" => (power, |a, b, d| if b == T::zero() { b } else { d * b * power(a, b - T::one()) }, power_by_exponent),
        "PRelu" => (
            |x, s| if x < T::zero() { x * s } else { x },
            |x, s, d| if x < T::zero() { d * s } else { d },
            |x, _, d| if x < T::zero() { d * x } else { T::zero() },
        ),
        // Equal operands share the gradient.
        "Min" => (|a, b| if b < a || b.is_nan() { b } else { a }, |a, b, d| share(b - a, d), |a, b, d| share(a - b, d)),
        "Max" => (|a, b| if b > a || b.is_nan() { b } else { a }, |a, b, d| share(a - b, d), |a, b, d| share(b - a, d)),
        _ => (|a, b| a + b, |_, _, d| d, |_, _, d| d),
    })
}

/// The part of `d` that goes to an operand that wins by `lead`.
fn share<T: Element>(lead: T, d: T) -> T {
    if lead > T::zero() {
        d
    } else if lead == T::zero() {
        d * T::of(0.5)
    } else {
        T::zero()
    }
}

fn power<T: Element>(a: T, b: T) -> T {
    if b == T::of(2.0) { a * a } else { a.powf(b) }
}

fn power_by_exponent<T: Element>(a: T, b: T, d: T) -> T {
    if a > T::zero() { d * a.powf(b) * a.ln() } else { T::zero() }
}

/// Inputs from the left, folded: the running results, of which the last is the output.
fn folded<T: Element>(op: &str, inputs: &[Array<T>]) -> Result<Vec<Array<T>>> {
    let (f, ..) = partials::<T>(op)?;
    let mut results = vec![inputs[0].clone()];
    for b in &inputs[1..] {
        let a = &results[results.len() - 1];
        let dims = broadcast_dims(a.dims(), b.dims());
        let dims = dims.ok_or_else(|| Error::invalid(format!("{:?} and {:?} do not broadcast", a.dims(), b.dims())))?;
        // Addition and multiplication have loops of their own, without a call per element.
        let y = match op {
            "Mul" => binary(a, b, &dims, |a, b| a * b),
            "Sub" => binary(a, b, &dims, |a, b| a - b),
            "Add" | "Sum" | "Mean" => binary(a, b, &dims, |a, b| a + b),
            _ => binary(a, b, &dims, f),
        };
        results.push(y);
    }
    if op == "Mean" {
        let by = T::one() / T::of(inputs.len() as f64);
        let last = results.len() - 1;
        results[last] = results[last].map(|x| x * by);
    }
    Ok(results)
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let inputs: Vec<Array<T>> = (0..f.inputs.len()).map(|k| f.number(k)).collect::<Result<_>>()?;
    let mut results = folded(&f.cx.node.op.op_type, &inputs)?;
    Ok(Computed::one(results.pop().ok_or_else(|| Error::invalid("it has no inputs"))?))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let op = &*b.cx.node.op.op_type;
    let inputs: Vec<Array<T>> = (0..b.inputs.len()).map(|k| b.number(k)).collect::<Result<_>>()?;
    let mut grads: Gradients<T> = vec![None; inputs.len()];
    let mut dy = b.grad()?.clone();
    if matches!(op, "Add" | "Sum" | "Mean") {
        if op == "Mean" {
            let by = T::one() / T::of(inputs.len() as f64);
            dy = dy.map(|d| d * by);
        }
        for (k, x) in inputs.iter().enumerate().filter(|(k, _)| b.wants(*k)) {
            grads[k] = Some(reduce_to(dy.clone(), x.dims()));
        }
        return Ok(grads);
    }
    let results = match inputs.len() {
        2 => vec![inputs[0].clone(), b.output()?.clone()],
        _ => folded(op, &inputs)?,
    };
    for k in (1..inputs.len()).rev() {
        let step = Step { op, x: &results[k - 1], y: &inputs[k], result: &results[k] };
        if b.wants(k) {
            grads[k] = Some(step.right(&dy)?);
        }
        if k > 1 || b.wants(0) {
            dy = step.left(&dy)?;
        }
    }
    if b.wants(0) {
        grads[0] = Some(dy);
    }
    Ok(grads)
}

/// One binary operation of a node, and the gradients of its operands.
struct Step<'a, T> {
    op: &'a str,
    x: &'a Array<T>,
    y: &'a Array<T>,
    result: &'a Array<T>,
}

impl<T: Element> Step<'_, T> {
    fn left(&self, dy: &Array<T>) -> Result<Array<T>> {
        let d = match self.op {
            "Sub" => dy.clone(),
            "Mul" => binary(dy, self.y, dy.dims(), |d, y| d * y),
            "Div" => binary(dy, self.y, dy.dims(), |d, y| d / y),
            "Pow" if self.y.len() == 1 && self.x.dims() == dy.dims() => {
                let (e, less) = (self.y.data()[0], self.y.data()[0] - T::one());
                binary(self.x, dy, dy.dims(), |x, d| if e == T::zero() { e } else { d * e * power(x, less) })
            }
            _ => self.spread(dy, partials::<T>(self.op)?.1),
        };
        Ok(reduce_to(d, self.x.dims()))
    }

    fn right(&self, dy: &Array<T>) -> Result<Array<T>> {
        let d = match self.op {
            "Sub" => dy.map(|d| -d),
            "Mul" => binary(dy, self.x, dy.dims(), |d, x| d * x),
            // -d x / y^2, where x / y is the result.
            "Div" => {
                let product = binary(dy, self.result, dy.dims(), |d, z| -d * z);
                binary(&product, self.y, dy.dims(), |p, y| p / y)
            }
            _ => self.spread(dy, partials::<T>(self.op)?.2),
        };
        Ok(reduce_to(d, self.y.dims()))
    }

    /// Both operands spread out, then one pass over three arrays.
    fn spread(&self, dy: &Array<T>, f: fn(T, T, T) -> T) -> Array<T> {
        let whole = |a: &Array<T>| View::dense(a.dims()).broadcast(dy.dims()).read(a.data());
        let (x, y) = (whole(self.x), whole(self.y));
        let elements = x.iter().zip(&y).zip(dy.data()).map(|((&x, &y), &d)| f(x, y, d));
        Array::new(dy.dims(), elements.collect())
    }
}
