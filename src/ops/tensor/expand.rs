//! Expand.

use crate::error::Result;
use crate::ir::Dim;
use crate::math::{Array, View, reduce_to};
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
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let (x, dims) = (f.float(0)?, f.shape()?);
    Ok(Computed::one(Array::new(&dims, View::dense(x.dims()).broadcast(&dims).read(x.data()))))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    Ok(b.first(reduce_to(b.grad()?.clone(), b.float(0)?.dims())))
}
