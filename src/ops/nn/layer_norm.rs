//! LayerNormalization.

use crate::error::{Error, Result};
use crate::ir::{DType, Dim};
use crate::math::Array;
use crate::ops::axes::{AxisLinks, LinkContext, elementwise_links, input, output};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::normalize::{self, Rows};
use crate::ops::rules::{axis, int};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Normalization over the axes from `axis` on.
pub struct LayerNormalization;

impl OpSpec for LayerNormalization {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("LayerNormalization", &[17])] }
    }

    /// The statistics stay f32.
    fn allows_f16(&self, cx: &InferContext) -> bool {
        cx.used_outputs <= 1
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let at = int(cx, "axis", -1)?;
        let stash = int(cx, "stash_type", 1)?;
        let stash = i32::try_from(stash).ok().and_then(DType::from_onnx);
        let stash = stash.ok_or_else(|| Error::invalid("attribute \"stash_type\" is no element type"))?;
        let Some(shape) = cx.shape(0) else {
            return Ok(vec![Inferred::tensor(cx.elem(0), None)]);
        };
        let at = axis(at, shape.len())?;
        let reduced: Vec<Dim> =
            shape.iter().enumerate().map(|(k, d)| if k < at { d.clone() } else { Dim::Known(1) }).collect();
        let statistic = Inferred::tensor(Some(stash), Some(reduced));
        Ok(vec![Inferred::tensor(cx.elem(0), Some(shape.to_vec())), statistic.clone(), statistic])
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let rank = cx.rank(0)?;
        let at = axis(int(cx.cx, "axis", -1).ok()?, rank).ok()?;
        let mut links = elementwise_links(cx, 0)?;
        for k in at..rank {
            links.inexact(input(0, k), "normalizes over it");
            for slot in (1..3).filter(|&slot| cx.cx.present(slot)) {
                // Scale and bias broadcast to the normalized axes.
                let Some(axis) = (k + cx.rank(slot)?).checked_sub(rank) else { continue };
                if cx.equal(input(slot, axis), input(0, k)) {
                    links.same(input(slot, axis), input(0, k));
                } else {
                    links.free(input(slot, axis));
                }
            }
        }
        for statistic in (1..3).filter(|&slot| cx.out_rank(slot).is_some()) {
            links.same_rest(0, statistic, 0..at);
            (at..rank).for_each(|k| links.free(output(statistic, k)));
        }
        Some(links)
    }

    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        // Mean and deviation as outputs have no rule.
        if cx.used_outputs > 1 { None } else { rule!(forward, backward) }
    }
}

fn rows<T: Element>(cx: &InferContext, x: &Array<T>, scale: &Array<T>) -> Result<Rows> {
    let at = axis(int(cx, "axis", -1)?, x.rank())?;
    Ok(Rows {
        len: x.dims()[at..].iter().product(),
        centred: true,
        parameters: scale.dims().to_vec(),
        input: x.dims().to_vec(),
        epsilon: 1e-5,
    })
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    normalize::forward(f, &rows(f.cx, f.float(0)?, f.float(1)?)?)
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    normalize::backward(b, &rows(b.cx, b.float(0)?, b.float(1)?)?)
}
