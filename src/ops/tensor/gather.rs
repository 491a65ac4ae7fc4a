//! Gather.

use crate::error::Result;
use crate::ir::Dim;
use crate::math::Array;
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{axis, int, is_f32, known_vector, output, vector};
use crate::ops::spec::{InferContext, Inferred, OpSpec, QuantRole, Schema, op};

/// Picks slices along an axis.
pub struct Gather;

impl OpSpec for Gather {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Gather", &[1, 11, 13])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let at = int(cx, "axis", 0)?;
        let Some(shape) = cx.shape(0) else { return output(cx.elem(0), None) };
        let at = axis(at, shape.len())?;
        let Some(indices) = cx.shape(1) else { return output(cx.elem(0), None) };
        let gathered = [&shape[..at], indices, &shape[at + 1..]].concat();
        let data = if shape.len() == 1 && indices.len() <= 1 { data(cx) } else { None };
        let mut out = output(cx.elem(0), Some(gathered))?;
        if let [inferred] = &mut out[..] {
            inferred.data = data;
        }
        Ok(out)
    }

    fn gradient(&self, _cx: &InferContext) -> Option<Rule> {
        rule!(forward, backward)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if is_f32(cx, 0) { QuantRole::PassThrough { input: 0 } } else { QuantRole::Opaque }
    }
}

fn data(cx: &InferContext) -> Option<Vec<Dim>> {
    let (data, indices) = (vector(cx, 0)?, known_vector(cx, 1)?);
    indices.into_iter().map(|i| data.get(axis(i, data.len()).ok()?).cloned()).collect()
}

/// Blocks before the axis, size of the axis, elements after it; and the positions to pick.
fn picks<T: Element>(cx: &InferContext, x: &Array<T>, indices: &[i64]) -> Result<([usize; 3], Vec<usize>)> {
    let at = axis(int(cx, "axis", 0)?, x.rank())?;
    let (size, inner) = (x.dims()[at], x.dims()[at + 1..].iter().product());
    let picks: Result<Vec<usize>> = indices.iter().map(|&i| axis(i, size)).collect();
    Ok(([x.dims()[..at].iter().product(), size, inner], picks?))
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let x = f.float(0)?;
    let ([outer, size, inner], picks) = picks(f.cx, x, &f.integers(1)?.0)?;
    let mut y = Vec::with_capacity(outer * picks.len() * inner);
    for block in 0..outer {
        picks.iter().for_each(|&i| y.extend_from_slice(&x.data()[(block * size + i) * inner..][..inner]));
    }
    Ok(Computed::one(Array::new(&f.shape()?, y)))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let (x, dy) = (b.float(0)?, b.grad()?);
    let ([outer, size, inner], picks) = picks(b.cx, x, &b.integers(1)?.0)?;
    let mut dx = Array::zeros(x.dims());
    let data = dx.data_mut();
    let places = (0..outer).flat_map(|block| picks.iter().map(move |&i| (block * size + i) * inner));
    for (at, dy) in places.zip(dy.data().chunks(inner.max(1))) {
        data[at..at + inner].iter_mut().zip(dy).for_each(|(x, &y)| *x += y);
    }
    Ok(b.first(dx))
}
