//! Functions of one element: the output has the input's type.

use crate::error::{Error, Result};
use crate::ir::AttributeValue;
use crate::math::{Array, elementwise2};
use crate::ops::axes::{AxisLinks, LinkContext, elementwise_links};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{changed, float, is_f32, same_as};
use crate::ops::spec::{ChannelRole, InferContext, Inferred, OpSpec, QuantRole, Schema, Upgrade, op};

/// One input, one output, equal types.
pub struct Unary;

impl OpSpec for Unary {
    fn schemas(&self) -> &'static [Schema] {
        &const {
            [
                op("Abs", &[1, 6, 13]),
                op("Acos", &[7, 22]),
                op("Acosh", &[9, 22]),
                op("Asin", &[7, 22]),
                op("Asinh", &[9, 22]),
                op("Atan", &[7, 22]),
                op("Atanh", &[9, 22]),
                op("BitwiseNot", &[18]),
                op("Ceil", &[1, 6, 13]),
                op("Celu", &[12]).no_f16(),
                op("Cos", &[7, 22]),
                op("Cosh", &[9, 22]),
                op("Elu", &[1, 6, 22]),
                op("Erf", &[9, 13]),
                op("Exp", &[1, 6, 13]),
                op("Floor", &[1, 6, 13]),
                op("Gelu", &[20]),
                op("HardSigmoid", &[1, 6, 22]),
                op("HardSwish", &[14, 22]),
                op("LeakyRelu", &[1, 6, 16]),
                op("Log", &[1, 6, 13]),
                op("Mish", &[18, 22]),
                op("Neg", &[1, 6, 13]),
                op("Not", &[1]),
                op("Reciprocal", &[1, 6, 13]),
                op("Round", &[11, 22]),
                op("Selu", &[1, 6, 22]),
                op("Shrink", &[9]),
                op("Sigmoid", &[1, 6, 13]),
                op("Sign", &[9, 13]),
                op("Sin", &[7, 22]),
                op("Sinh", &[9, 22]),
                op("Softplus", &[1, 22]),
                op("Softsign", &[1, 22]),
                op("Sqrt", &[1, 6, 13]),
                op("Swish", &[24]),
                op("Tan", &[7, 22]),
                op("Tanh", &[1, 6, 13]),
                op("ThresholdedRelu", &[10, 22]),
            ]
        }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        same_as(cx, 0)
    }

    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        // Round, Shrink and what is not about floats.
        let none = ["BitwiseNot", "Not", "Round", "Shrink"];
        if none.contains(&&*cx.node.op.op_type) { None } else { rule!(forward, backward) }
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        match &*cx.node.op.op_type {
            // Those with a kernel in ONNX Runtime.
            "Sigmoid" | "LeakyRelu" if is_f32(cx, 0) => QuantRole::Elementwise { inputs: vec![0] },
            _ => QuantRole::Opaque,
        }
    }

    fn channels(&self, cx: &InferContext, axis: usize) -> ChannelRole {
        // Linear on either side of zero.
        match &*cx.node.op.op_type {
            "LeakyRelu" | "Abs" | "Neg" => ChannelRole::same(axis),
            _ => ChannelRole::Barrier,
        }
    }

    fn upgrade(&self, cx: &InferContext, _to: i64) -> Upgrade {
        if cx.opset >= 6 || &*cx.node.op.op_type != "Selu" {
            return Upgrade::Same;
        }
        // The defaults before operator set 6 had fewer digits.
        let mut node = cx.node.clone();
        for (name, value) in [("alpha", 1.6732), ("gamma", 1.0507)] {
            if node.attribute(name).is_none() {
                node.set(name, AttributeValue::Float(value));
            }
        }
        changed(node)
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        elementwise_links(cx, 0)
    }
}

/// Two attributes, as `first` and `second` are called and what they are by default.
fn parameters<T: Element>(cx: &InferContext) -> Result<[T; 2]> {
    let names = match &*cx.node.op.op_type {
        "LeakyRelu" => [("alpha", 0.01), ("", 0.0)],
        "Elu" | "Celu" | "ThresholdedRelu" | "Swish" => [("alpha", 1.0), ("", 0.0)],
        "HardSigmoid" => [("alpha", 0.2), ("beta", 0.5)],
        "Selu" => [("alpha", 1.673_263_2), ("gamma", 1.050_701)],
        _ => [("", 0.0), ("", 0.0)],
    };
    let read = |(name, default): (&str, f32)| -> Result<T> { Ok(T::of(float(cx, name, default)?.into())) };
    Ok([read(names[0])?, read(names[1])?])
}

fn sigmoid<T: Element>(x: T) -> T {
    T::one() / (T::one() + (-x).exp())
}

/// `ln(1 + e^x)`, also of large `x`.
fn softplus<T: Element>(x: T) -> T {
    x.max(T::zero()) + (-x.abs()).exp().ln_1p()
}

/// Half of one plus `erf(x / sqrt 2)`: the normal distribution function.
fn normal<T: Element>(x: T) -> T {
    (T::one() + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf()) * T::of(0.5)
}

fn is_tanh_gelu(cx: &InferContext) -> bool {
    cx.node.string("approximate") == Some("tanh")
}

/// The argument of tanh in the approximation of Gelu, and its derivative.
fn gelu_inner<T: Element>(x: T) -> (T, T) {
    let (c, k) = (T::of(0.797_884_560_802_865_4), T::of(0.044715));
    (c * (x + k * x * x * x), c * (T::one() + T::of(3.0) * k * x * x))
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let (x, [a, b], one, zero) = (f.float(0)?, parameters::<T>(f.cx)?, T::one(), T::zero());
    let y = match &*f.cx.node.op.op_type {
        "Abs" => x.map(T::abs),
        "Acos" => x.map(T::acos),
        "Acosh" => x.map(T::acosh),
        "Asin" => x.map(T::asin),
        "Asinh" => x.map(T::asinh),
        "Atan" => x.map(T::atan),
        "Atanh" => x.map(T::atanh),
        "Ceil" => x.map(T::ceil),
        "Celu" => x.map(|x| if x > zero { x } else { a * (x / a).exp_m1() }),
        "Cos" => x.map(T::cos),
        "Cosh" => x.map(T::cosh),
        "Elu" => x.map(|x| if x > zero { x } else { a * x.exp_m1() }),
        "Erf" => x.map(T::erf),
        "Exp" => x.map(T::exp),
        "Floor" => x.map(T::floor),
        "Gelu" if is_tanh_gelu(f.cx) => x.map(|x| T::of(0.5) * x * (one + gelu_inner(x).0.tanh())),
        "Gelu" => x.map(|x| x * normal(x)),
        "HardSigmoid" => x.map(|x| (a * x + b).max(zero).min(one)),
        "HardSwish" => x.map(|x| x * (x / T::of(6.0) + T::of(0.5)).max(zero).min(one)),
        "LeakyRelu" => x.map(|x| if x < zero { a * x } else { x }),
        "Log" => x.map(T::ln),
        "Mish" => x.map(|x| x * softplus(x).tanh()),
        "Neg" => x.map(|x| -x),
        "Reciprocal" => x.map(T::recip),
        "Selu" => x.map(|x| b * if x > zero { x } else { a * x.exp_m1() }),
        "Sigmoid" => x.map(sigmoid),
        "Sign" => x.map(|x| if x == zero { zero } else { x.signum() }),
        "Sin" => x.map(T::sin),
        "Sinh" => x.map(T::sinh),
        "Softplus" => x.map(softplus),
        "Softsign" => x.map(|x| x / (one + x.abs())),
        "Sqrt" => x.map(T::sqrt),
        "Swish" => x.map(|x| x * sigmoid(a * x)),
        "Tan" => x.map(T::tan),
        "Tanh" => x.map(T::tanh),
        "ThresholdedRelu" => x.map(|x| if x > a { x } else { zero }),
        other => return Err(Error::internal(format!("no forward function of {other}"))),
    };
    Ok(Computed::one(y))
}

fn backward<T: Element>(g: &Backward<T>) -> Result<Gradients<T>> {
    let (x, y, dy) = (g.float(0)?, g.output()?, g.grad()?);
    let ([a, b], one, zero) = (parameters::<T>(g.cx)?, T::one(), T::zero());
    // From the input, or from the output where that is simpler.
    macro_rules! from {
        ($source:expr, $f:expr) => {
            elementwise2($source.data(), dy.data(), $f)
        };
    }
    let if_positive = |x: T, d: T| if x > zero { d } else { zero };
    let dx = match &*g.cx.node.op.op_type {
        "Abs" => from!(x, |x, d| if x == zero { zero } else { d * x.signum() }),
        "Acos" => from!(x, |x, d| -d / (one - x * x).sqrt()),
        "Acosh" => from!(x, |x, d| d / (x * x - one).sqrt()),
        "Asin" => from!(x, |x, d| d / (one - x * x).sqrt()),
        "Asinh" => from!(x, |x, d| d / (x * x + one).sqrt()),
        "Atan" => from!(x, |x, d| d / (x * x + one)),
        "Atanh" => from!(x, |x, d| d / (one - x * x)),
        "Celu" => from!(x, |x, d| if x > zero { d } else { d * (x / a).exp() }),
        "Cos" => from!(x, |x, d| -d * x.sin()),
        "Cosh" => from!(x, |x, d| d * x.sinh()),
        "Elu" => from!(x, |x, d| if x > zero { d } else { d * a * x.exp() }),
        "Erf" => from!(x, |x, d| d * T::of(std::f64::consts::FRAC_2_SQRT_PI) * (-x * x).exp()),
        "Exp" => from!(y, |y, d| d * y),
        "Gelu" if is_tanh_gelu(g.cx) => from!(x, |x, d| {
            let (inner, slope) = gelu_inner(x);
            let t = inner.tanh();
            d * T::of(0.5) * (one + t + x * (one - t * t) * slope)
        }),
        "Gelu" => from!(x, |x, d| {
            let density = (-x * x * T::of(0.5)).exp() * T::of(0.398_942_280_401_432_7);
            d * (normal(x) + x * density)
        }),
        "HardSigmoid" => from!(x, |x, d| if a * x + b > zero && a * x + b < one { d * a } else { zero }),
        "HardSwish" => from!(x, |x, d| {
            let three = T::of(3.0);
            if x >= three {
                d
            } else if x > -three {
                d * (x / three + T::of(0.5))
            } else {
                zero
            }
        }),
        "LeakyRelu" => from!(x, |x, d| if x < zero { d * a } else { d }),
        "Log" => from!(x, |x, d| d / x),
        "Mish" => from!(x, |x, d| {
            let t = softplus(x).tanh();
            d * (t + x * (one - t * t) * sigmoid(x))
        }),
        "Neg" => dy.map(|d| -d).data().to_vec(),
        "Reciprocal" => from!(y, |y, d| -d * y * y),
        "Selu" => from!(x, |x, d| d * b * if x > zero { one } else { a * x.exp() }),
        "Sigmoid" => from!(y, |y, d| d * y * (one - y)),
        "Sin" => from!(x, |x, d| d * x.cos()),
        "Sinh" => from!(x, |x, d| d * x.cosh()),
        "Softplus" => from!(x, |x, d| d * sigmoid(x)),
        "Softsign" => from!(x, |x, d| d / ((one + x.abs()) * (one + x.abs()))),
        // At 0 the slope is infinite; no gradient comes from there.
        "Sqrt" => from!(y, |y, d| if y > zero { d / (y + y) } else { zero }),
        "Swish" => from!(x, |x, d| {
            let s = sigmoid(a * x);
            d * (s + a * x * s * (one - s))
        }),
        "Tan" => from!(y, |y, d| d * (one + y * y)),
        "Tanh" => from!(y, |y, d| d * (one - y * y)),
        "ThresholdedRelu" => from!(x, |x, d| if_positive(x - a, d)),
        // Steps are flat: Ceil, Floor, Sign.
        _ => return Ok(vec![None]),
    };
    Ok(g.first(Array::new(x.dims(), dx)))
}
