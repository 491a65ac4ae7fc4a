//! Where.

use crate::error::Result;
use crate::ir::Dim;
use crate::math::{Array, binary, reduce_to};
use crate::ops::axes::{AxisLinks, LinkContext, broadcast_links};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{broadcast_inputs, is_f32, output, vector};
use crate::ops::spec::{InferContext, Inferred, OpSpec, QuantRole, Schema, op};

/// Picks each element from one of two inputs.
pub struct Where;

impl OpSpec for Where {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Where", &[9, 16])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let mut out = output(cx.elem(1).or(cx.elem(2)), broadcast_inputs(cx, 0..3)?)?;
        if let [inferred] = &mut out[..] {
            inferred.data = data(cx);
        }
        Ok(out)
    }

    fn gradient(&self, _cx: &InferContext) -> Option<Rule> {
        rule!(forward, backward)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if is_f32(cx, 1) { QuantRole::Elementwise { inputs: vec![1, 2] } } else { QuantRole::Opaque }
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        broadcast_links(cx, 0..cx.cx.inputs.len())
    }
}

fn data(cx: &InferContext) -> Option<Vec<Dim>> {
    if !cx.elem(1)?.is_int() {
        return None;
    }
    let (condition, yes, no) = (vector(cx, 0)?, vector(cx, 1)?, vector(cx, 2)?);
    if condition.len() != yes.len() || condition.len() != no.len() {
        return None;
    }
    let picked = condition.iter().zip(yes.iter().zip(&no)).map(|(c, (y, n))| match c {
        Dim::Known(0) => n.clone(),
        Dim::Known(_) => y.clone(),
        _ if y == n => y.clone(),
        _ => Dim::Unknown,
    });
    Some(picked.collect())
}

/// 1 where the first choice is taken.
fn mask<T: Element>((bits, dims): (Vec<i64>, &[usize])) -> Array<T> {
    Array::new(dims, bits.into_iter().map(|b| T::of((b != 0).into())).collect())
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let (mask, dims) = (mask::<T>(f.integers(0)?), f.shape()?);
    // In two steps, where infinity that is not picked must leave no trace.
    let chosen = |x: &Array<T>, keep: bool| {
        let pick = |m: T, x: T| if (m > T::zero()) == keep { x } else { T::zero() };
        binary(&mask, x, &dims, pick)
    };
    let mut y = chosen(&f.number(1)?, true);
    y.add(&chosen(&f.number(2)?, false));
    Ok(Computed::one(y))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let (mask, dy) = (mask::<T>(b.integers(0)?), b.grad()?);
    let side = |k: usize| -> Result<Option<Array<T>>> {
        let pick = |m: T, d: T| if (m > T::zero()) == (k == 1) { d } else { T::zero() };
        let taken = || binary(&mask, dy, dy.dims(), pick);
        Ok(if b.wants(k) { Some(reduce_to(taken(), b.float(k)?.dims())) } else { None })
    };
    Ok(vec![None, side(1)?, side(2)?])
}
