//! Expand.

use crate::error::Result;
use crate::ir::{Dim, Tensor};
use crate::math::{Array, View, reduce_to};
use crate::ops::axes::{AxisLinks, Kept, LinkContext, Narrowed, input, output as out};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{broadcast, is_f32, output, requested_shape};
use crate::ops::spec::{InferContext, Inferred, OpSpec, QuantRole, Schema, op};

/// Broadcasts a tensor and a requested shape.
pub struct Expand;

impl OpSpec for Expand {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Expand", &[8, 13])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let shape: Option<Vec<Dim>> = match (cx.shape(0), requested_shape(cx, 1)?) {
            (Some(shape), Some(requested)) => Some(broadcast(shape, &requested)?),
            _ => None,
        };
        output(cx.elem(0), shape)
    }

    fn gradient(&self, _cx: &InferContext) -> Option<Rule> {
        rule!(forward, backward)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if is_f32(cx, 0) { QuantRole::PassThrough { input: 0 } } else { QuantRole::Opaque }
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let rank = cx.out_rank(0)?;
        let shift = rank.checked_sub(cx.rank(0)?)?;
        let mut links = AxisLinks::default();
        // A requested shape that is computed is left as it is.
        let constant = cx.cx.constant(1).is_some();
        for k in 0..rank {
            match k.checked_sub(shift).map(|k| input(0, k)) {
                Some(from) if cx.equal(from, out(0, k)) && constant => links.same(from, out(0, k)),
                Some(from) if cx.size(from) == Some(1) => links.free(from),
                _ => {}
            }
        }
        Some(links)
    }

    fn narrow(&self, cx: &LinkContext, kept: &Kept) -> Narrowed {
        let Some(mut shape) = cx.cx.ints(1) else { return Narrowed::Same };
        let Some(rank) = cx.out_rank(0).filter(|r| *r >= shape.len()) else { return Narrowed::Same };
        let shift = rank - shape.len();
        let mut changed = false;
        for (k, size) in shape.iter_mut().enumerate().filter(|(_, size)| **size != 1) {
            if let Some(left) = kept.of(out(0, k + shift)) {
                *size = left.len() as i64;
                changed = true;
            }
        }
        if !changed {
            return Narrowed::Same;
        }
        Narrowed::with_inputs(cx.cx.node, vec![(1, Tensor::from_i64(&[shape.len()], &shape))])
    }
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let (x, dims) = (f.float(0)?, f.shape()?);
    Ok(Computed::one(Array::new(&dims, View::dense(x.dims()).broadcast(&dims).read(x.data()))))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    Ok(b.first(reduce_to(b.grad()?.clone(), b.float(0)?.dims())))
}
