//! Transpose.

use crate::error::{Error, Result};
use crate::math::{Array, View};
use crate::ops::axes::{self, AxisLinks, LinkContext, input};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{axis_mask, ints, is_f32, output};
use crate::ops::spec::{ChannelRole, InferContext, Inferred, OpSpec, QuantRole, Schema, op};

/// Permutes the axes.
pub struct Transpose;

impl OpSpec for Transpose {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Transpose", &[1, 13, 21, 23, 24, 25])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let Some(shape) = cx.shape(0) else { return output(cx.elem(0), None) };
        let permuted = match ints(cx, "perm")? {
            None => shape.iter().rev().cloned().collect(),
            Some(perm) => {
                axis_mask(perm, shape.len())?;
                if perm.len() != shape.len() || perm.iter().any(|&a| a < 0) {
                    let rank = shape.len();
                    return Err(Error::invalid(format!("perm {perm:?} does not permute the axes of rank {rank}")));
                }
                perm.iter().map(|&a| shape[a as usize].clone()).collect()
            }
        };
        output(cx.elem(0), Some(permuted))
    }

    fn gradient(&self, _cx: &InferContext) -> Option<Rule> {
        rule!(forward, backward)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if is_f32(cx, 0) { QuantRole::PassThrough { input: 0 } } else { QuantRole::Opaque }
    }

    fn channels(&self, cx: &InferContext, axis: usize) -> ChannelRole {
        let to = match (ints(cx, "perm"), cx.shape(0)) {
            (Ok(Some(perm)), _) => perm.iter().position(|&a| usize::try_from(a) == Ok(axis)),
            (Ok(None), Some(shape)) => shape.len().checked_sub(axis + 1),
            _ => None,
        };
        to.map_or(ChannelRole::Barrier, |axis| ChannelRole::Passes { inputs: vec![0], axis, repeat: 1 })
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let rank = cx.rank(0)?;
        let mut links = AxisLinks::default();
        match ints(cx.cx, "perm").ok()? {
            None => (0..rank).for_each(|k| links.same(input(0, rank - 1 - k), axes::output(0, k))),
            Some(perm) => {
                for (k, &from) in perm.iter().enumerate() {
                    links.same(input(0, usize::try_from(from).ok()?), axes::output(0, k));
                }
            }
        }
        Some(links)
    }
}

fn order(cx: &InferContext, rank: usize) -> Result<Vec<usize>> {
    Ok(ints(cx, "perm")?.map_or_else(|| (0..rank).rev().collect(), |p| p.iter().map(|&a| a as usize).collect()))
}

fn permuted<T: Element>(x: &Array<T>, order: &[usize]) -> Array<T> {
    let view = View::dense(x.dims()).permuted(order);
    Array::new(&view.dims, view.read(x.data()))
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let x = f.float(0)?;
    Ok(Computed::one(permuted(x, &order(f.cx, x.rank())?)))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let dy = b.grad()?;
    let order = order(b.cx, dy.rank())?;
    let mut back = vec![0; order.len()];
    order.iter().enumerate().for_each(|(k, &a)| back[a] = k);
    Ok(b.first(permuted(dy, &back)))
}
