//! GroupNormalization: scale and bias are per group before operator set 21, per channel as of it.

use crate::error::Result;
use crate::ir::{AttributeValue, Dim, Tensor};
use crate::math::Array;
use crate::ops::axes::{AxisLinks, AxisMap, Kept, LinkContext, Narrowed, elementwise_links, input};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::legacy::step;
use crate::ops::normalize::{self, Rows};
use crate::ops::rules::{int, same_as, size};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, Source, Step, Upgrade, op};

/// Normalization over groups of channels.
pub struct GroupNormalization;

impl OpSpec for GroupNormalization {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("GroupNormalization", &[18, 21])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        same_as(cx, 0)
    }

    fn gradient(&self, _cx: &InferContext) -> Option<Rule> {
        rule!(forward, backward)
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        if cx.opset >= 21 || to < 21 {
            return Upgrade::Same;
        }
        let groups = int(cx, "num_groups", 0).unwrap_or(0);
        let per_group = match size(cx, 0, 1) {
            Dim::Known(channels) if groups > 0 && channels % groups == 0 => channels / groups,
            _ => return Upgrade::Impossible("its number of channels, or of groups, is not known".into()),
        };
        let Some(elem) = cx.elem(0) else {
            return Upgrade::Impossible("the element type of its input is not known".into());
        };
        let mut node = cx.node.clone();
        // Operator set 21 would compute in f32 by default, 18 computed in the input's type.
        node.set("stash_type", AttributeValue::Int(elem.onnx().into()));
        let mut steps = vec![];
        for slot in [1, 2] {
            let ints = |v: &[i64]| Source::Constant(Tensor::from_i64(&[v.len()], v));
            let at = steps.len();
            steps.push(step("Reshape", vec![Source::Input(slot), ints(&[-1, 1])], &[]));
            steps.push(step("Expand", vec![Source::Step(at), ints(&[1, per_group])], &[]));
            steps.push(step("Reshape", vec![Source::Step(at + 1), ints(&[-1])], &[]));
        }
        steps.push(Step { node, inputs: vec![Source::Input(0), Source::Step(2), Source::Step(5)] });
        Upgrade::Replaced(steps)
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let groups = usize::try_from(int(cx.cx, "num_groups", 0).ok()?).ok().filter(|&g| g > 0)?;
        let channels = cx.size(input(0, 1)).filter(|c| c % groups == 0)?;
        let mut links = elementwise_links(cx, 0)?;
        // Statistics are per group: it goes as a whole.
        links.tie(input(0, 1), channels / groups, groups);
        for slot in 1..3 {
            if cx.cx.opset < 21 {
                links.link(input(0, 1), input(slot, 0), AxisMap::Stride { inner: channels / groups });
            } else {
                links.same(input(slot, 0), input(0, 1));
            }
        }
        Some(links)
    }

    fn narrow(&self, cx: &LinkContext, kept: &Kept) -> Narrowed {
        let groups = int(cx.cx, "num_groups", 0).ok().and_then(|g| usize::try_from(g).ok()).unwrap_or(0);
        match (kept.of(input(0, 1)), cx.size(input(0, 1))) {
            (Some(left), Some(all)) if all > 0 => {
                Narrowed::with_int(cx.cx.node, "num_groups", left.len() * groups / all)
            }
            _ => Narrowed::Same,
        }
    }
}

fn rows<T: Element>(cx: &InferContext, x: &Array<T>, scale: &Array<T>) -> Result<Rows> {
    let (dims, groups) = (x.dims(), int(cx, "num_groups", 1)?.max(1) as usize);
    let (per_group, plane): (usize, usize) = (dims[1] / groups, dims[2..].iter().product());
    // One scale per channel as of operator set 21, one per group before.
    let each = scale.len() / groups.max(1);
    Ok(Rows {
        len: per_group * plane,
        centred: true,
        parameters: vec![groups, each, 1],
        input: vec![dims[0], groups, per_group, plane],
        epsilon: 1e-5,
    })
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    normalize::forward(f, &rows(f.cx, f.float(0)?, f.float(1)?)?)
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    normalize::backward(b, &rows(b.cx, b.float(0)?, b.float(1)?)?)
}
