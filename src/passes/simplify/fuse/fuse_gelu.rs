//! The formulas of Gelu become Gelu.

use super::matching::{Look, replace_node};
use super::product::Product;
use crate::error::Result;
use crate::ir::{AttributeValue, DType, Graph, NodeId, ValueId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `y = 0.5 * x * (1 + Erf(x / sqrt(2)))`, in any order of multiplications and with any of them as a division by a
/// constant. After: `y = Gelu(x)`. Likewise `0.5 * x * (1 + Tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))`, with the cube as
/// Pow or as products, and after it `Gelu<approximate = "tanh">(x)`.
///
/// When: opset 20. The constants have one element, are those numbers up to their type's rounding, and add no axis. Every
/// value between has no other use and is no graph output.
/// Why it is equal: the specification defines Gelu by these formulas.
pub struct FuseGelu;

impl Rewrite for FuseGelu {
    fn name(&self) -> &'static str {
        "fuse_gelu"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("Mul"), onnx("Div")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        Ok(apply(Look::new(graph, cx), id))
    }
}

const SQRT_HALF: f64 = std::f64::consts::FRAC_1_SQRT_2;
/// The square root of 2 / pi.
const TANH_SCALE: f64 = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
const CUBE_SCALE: f64 = 0.044715;

fn apply(look: Look, id: NodeId) -> Option<Patch> {
    if look.cx.opset < 20 {
        return None;
    }
    let product = Product::of_node(look, id)?;
    let gated = |&(x, gate): &(ValueId, ValueId)| {
        let sum = look.inner(gate, "Add").filter(|_| product.is_scaled_by(look, x, 0.5))?;
        let s = look.beside(sum, 1.0)?;
        let attributes = if let Some(erf) = look.inner(s, "Erf") {
            let argument = Product::of_value(look, look.graph.input(erf, 0)?)?;
            (argument.terms == [x] && argument.is_scaled_by(look, x, SQRT_HALF)).then(Vec::new)?
        } else {
            let tanh = look.inner(s, "Tanh")?;
            is_tanh_argument(look, look.graph.input(tanh, 0)?, x)?;
            vec![("approximate", AttributeValue::from("tanh"))]
        };
        // ONNX Runtime has Gelu for these types only.
        matches!(look.elem(x)?, DType::F32 | DType::F16).then_some(())?;
        let mut patch = Patch::default();
        replace_node(look.graph, &mut patch, id, "Gelu", &attributes, &[Some(x.into())])?;
        Some(patch)
    };
    product.pairs().iter().find_map(gated)
}

/// Whether `v` is `sqrt(2 / pi) * (x + 0.044715 * x^3)`, or with `x` outside: `sqrt(2 / pi) * x * (1 + 0.044715 * x^2)`.
fn is_tanh_argument(look: Look, v: ValueId, x: ValueId) -> Option<()> {
    let argument = Product::of_value(look, v).filter(|p| p.is_scaled_by(look, x, TANH_SCALE))?;
    let (sum, exponent) = match argument.terms[..] {
        [sum] => (sum, 3),
        [a, sum] | [sum, a] if a == x => (sum, 2),
        _ => return None,
    };
    let add = look.inner(sum, "Add")?;
    let term = match exponent {
        3 => look.either_way(add).into_iter().flatten().find(|&(a, _)| a == x).map(|(_, t)| t)?,
        _ => look.beside(add, 1.0)?,
    };
    is_power(look, term, x, exponent).then_some(())
}

/// Whether `v` is `0.044715 * x^exponent`.
fn is_power(look: Look, v: ValueId, x: ValueId, exponent: usize) -> bool {
    let Some(product) = Product::of_value(look, v).filter(|p| p.is_scaled_by(look, x, CUBE_SCALE)) else {
        return false;
    };
    let powers: Option<usize> =
        product.terms.iter().map(|&t| if t == x { Some(1) } else { power_of(look, t, x) }).sum();
    powers == Some(exponent)
}

/// `n`, where `v` is Pow(x, n) for a small positive `n`.
fn power_of(look: Look, v: ValueId, x: ValueId) -> Option<usize> {
    let pow = look.inner(v, "Pow")?;
    let (base, exponent) = look.operands(pow)?;
    let n = look.scalar(exponent).filter(|s| base == x && look.keeps_shape(x, s.rank))?.value;
    [2usize, 3].into_iter().find(|&k| n == k as f64)
}
