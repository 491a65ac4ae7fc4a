//! Normalizations whose only output has the input's type.

use crate::error::Result;
use crate::math::Array;
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::normalize::{self, Rows};
use crate::ops::rules::{axis, int, same_as};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// InstanceNormalization, LRN and relatives.
pub struct Norm;

impl OpSpec for Norm {
    fn schemas(&self) -> &'static [Schema] {
        &const {
            [
                op("InstanceNormalization", &[1, 6, 22]),
                op("RMSNormalization", &[23]),
                op("MeanVarianceNormalization", &[9, 13]),
                op("LpNormalization", &[1, 22]),
                op("LRN", &[1, 13]),
            ]
        }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        same_as(cx, 0)
    }

    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        match &*cx.node.op.op_type {
            "InstanceNormalization" | "RMSNormalization" if cx.opset >= 6 => rule!(forward, backward),
            _ => None,
        }
    }
}

fn rows<T: Element>(cx: &InferContext, x: &Array<T>, scale: &Array<T>) -> Result<Rows> {
    let (dims, epsilon) = (x.dims(), 1e-5);
    if &*cx.node.op.op_type == "RMSNormalization" {
        let len = dims[axis(int(cx, "axis", -1)?, dims.len())?..].iter().product();
        return Ok(Rows { len, centred: false, parameters: scale.dims().to_vec(), input: dims.to_vec(), epsilon });
    }
    let (plane, channels) = (dims[2..].iter().product(), dims[1]);
    let input = vec![dims[0], channels, plane];
    Ok(Rows { len: plane, centred: true, parameters: vec![channels, 1], input, epsilon })
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    normalize::forward(f, &rows(f.cx, f.float(0)?, f.float(1)?)?)
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    normalize::backward(b, &rows(b.cx, b.float(0)?, b.float(1)?)?)
}
