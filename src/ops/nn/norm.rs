//! Normalizations whose only output has the input's type.

use crate::error::Result;
use crate::math::Array;
use crate::ops::axes::{AxisLinks, LinkContext, elementwise_links, input};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::normalize::{self, Rows};
use crate::ops::rules::{axis, int, ints, same_as};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// InstanceNormalization, LRN and relatives.
pub struct Norm;

const NORMALIZES: &str = "normalizes over it";

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

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let rank = cx.rank(0)?;
        let mut links = elementwise_links(cx, 0)?;
        match &*cx.cx.node.op.op_type {
            "InstanceNormalization" => {
                (1..3).for_each(|slot| links.same(input(slot, 0), input(0, 1)));
                (2..rank).for_each(|k| links.inexact(input(0, k), NORMALIZES));
            }
            "RMSNormalization" => {
                let at = axis(int(cx.cx, "axis", -1).ok()?, rank).ok()?;
                for k in at..rank {
                    links.inexact(input(0, k), NORMALIZES);
                    let Some(axis) = (k + cx.rank(1)?).checked_sub(rank) else { continue };
                    if cx.equal(input(1, axis), input(0, k)) {
                        links.same(input(1, axis), input(0, k));
                    } else {
                        links.free(input(1, axis));
                    }
                }
            }
            "LpNormalization" => {
                let at = axis(int(cx.cx, "axis", -1).ok()?, rank).ok()?;
                links.inexact(input(0, at), NORMALIZES);
            }
            "LRN" => links.inexact(input(0, 1), "normalizes over neighbours in it"),
            _ => {
                let axes = ints(cx.cx, "axes").ok()?.unwrap_or(&[0, 2, 3]);
                for &a in axes {
                    links.inexact(input(0, axis(a, rank).ok()?), NORMALIZES);
                }
            }
        }
        Some(links)
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
