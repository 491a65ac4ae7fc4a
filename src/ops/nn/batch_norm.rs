//! BatchNormalization.

use crate::error::{Error, Result};
use crate::math::{Array, channel_affine, channel_mix, channel_moments, channel_sums};
use crate::ops::axes::{AxisLinks, LinkContext, elementwise_links, input, output};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{float, int, without};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, Upgrade, op};

/// Normalization with stored statistics.
pub struct BatchNormalization;

impl OpSpec for BatchNormalization {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("BatchNormalization", &[1, 6, 7, 9, 14, 15])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let like = |k: usize| Inferred::tensor(cx.elem(k), cx.shape(k).map(<[_]>::to_vec));
        Ok(if cx.opset >= 14 { vec![like(0), like(3), like(4)] } else { vec![like(0)] })
    }

    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        // In training mode its outputs are others, and before 9 each element could have statistics of its own.
        let plain = int(cx, "training_mode", 0).ok()? == 0 && cx.used_outputs < 2 && int(cx, "spatial", 1).ok()? == 1;
        if plain && cx.opset >= 7 { rule!(forward, backward, statistics: &[3, 4], settings: &[]) } else { None }
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        let no = |why: &str| Upgrade::Impossible(why.into());
        if cx.opset < 7 && int(cx, "is_test", 0).ok() != Some(1) {
            return no("it is in training mode");
        }
        if cx.opset < 9 && int(cx, "spatial", 1).ok() != Some(1) {
            return no("\"spatial\" other than 1 has no successor");
        }
        if cx.opset < 14 && to >= 14 && cx.node.output_slots > 1 {
            return no("it is in training mode, whose outputs changed in operator set 14");
        }
        let legacy = ["spatial", "is_test"];
        if cx.opset < 9 && legacy.iter().any(|a| cx.node.attribute(a).is_some()) {
            return Upgrade::Changed { node: Box::new(without(cx.node, &legacy)), new_inputs: vec![] };
        }
        Upgrade::Same
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        if cx.cx.node.output_slots > 1 || cx.cx.opset < 9 {
            return None; // training
        }
        let mut links = elementwise_links(cx, 0)?;
        (1..5).for_each(|k| links.same(input(k, 0), output(0, 1)));
        Some(links)
    }
}

/// Samples, channels, elements per plane.
fn planes(dims: &[usize]) -> (usize, usize, usize) {
    (dims[0], dims.get(1).copied().unwrap_or(1), dims.iter().skip(2).product())
}

/// Stored statistics, or in training the batch's.
fn statistics<T: Element>(x: &Array<T>, stored: [&Array<T>; 2], training: bool) -> [Vec<T>; 2] {
    match training && !x.is_empty() {
        true => channel_moments(x.data(), planes(x.dims())).into(),
        false => stored.map(|s| s.data().to_vec()),
    }
}

/// `1 / sqrt(variance + epsilon)`.
fn scales<T: Element>(cx: &InferContext, variance: &[T]) -> Result<Vec<T>> {
    let epsilon = T::of(float(cx, "epsilon", 1e-5)?.into());
    Ok(variance.iter().map(|&v| T::one() / (v + epsilon).sqrt()).collect())
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let (x, gamma, beta) = (f.float(0)?, f.float(1)?, f.float(2)?);
    let stored = [f.float(3)?, f.float(4)?];
    let [mean, variance] = statistics(x, stored, f.training);
    let scale = scales(f.cx, &variance)?;
    let factor: Vec<T> = scale.iter().zip(gamma.data()).map(|(&s, &g)| s * g).collect();
    let shift: Vec<T> = factor.iter().zip(&mean).zip(beta.data()).map(|((&f, &m), &b)| b - f * m).collect();
    let y = channel_affine(x.data(), planes(x.dims()), &factor, &shift);
    let mut computed = Computed::one(Array::new(x.dims(), y));
    if f.training && !x.is_empty() {
        let (n, _, l) = planes(x.dims());
        // Stored variances are unbiased, as PyTorch's.
        let unbiased = T::of((n * l) as f64 / ((n * l).max(2) - 1) as f64);
        let stored_variance = variance.iter().map(|&v| v * unbiased).collect();
        let like = |old: &Array<T>, new: Vec<T>| Array::new(old.dims(), new);
        computed.statistics = vec![(3, like(stored[0], mean.clone())), (4, like(stored[1], stored_variance))];
    }
    computed.saved.arrays = vec![mean, scale];
    Ok(computed)
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let (x, gamma, dy) = (b.float(0)?, b.float(1)?, b.grad()?);
    let (sizes, channels) = (planes(x.dims()), gamma.dims());
    let [mean, scale] = &b.saved.arrays[..] else { return Err(Error::internal("statistics are not saved")) };
    let (total, along) = channel_sums(x.data(), dy.data(), sizes, mean);
    let factor: Vec<T> = scale.iter().zip(gamma.data()).map(|(&s, &g)| s * g).collect();
    let per_channel = |f: &dyn Fn(usize) -> T| Array::new(channels, (0..scale.len()).map(f).collect());
    let batch = b.training && !x.is_empty();
    let mut grads = vec![None; b.inputs.len()];
    if b.wants(0) {
        let count = T::of((sizes.0 * sizes.2).max(1) as f64);
        let (mix, shift) = match batch {
            // dx = factor * (dy - mean(dy) - (x - mean) * scale^2 * mean(dy * (x - mean)))
            true => {
                let mix: Vec<T> =
                    (0..scale.len()).map(|c| -factor[c] * scale[c] * scale[c] * along[c] / count).collect();
                let shift = (0..scale.len()).map(|c| -factor[c] * total[c] / count - mix[c] * mean[c]).collect();
                (mix, shift)
            }
            false => (vec![T::zero(); scale.len()], vec![T::zero(); scale.len()]),
        };
        let dx = match batch {
            true => channel_mix(x.data(), dy.data(), sizes, &factor, &mix, &shift),
            false => channel_affine(dy.data(), sizes, &factor, &shift),
        };
        grads[0] = Some(Array::new(x.dims(), dx));
    }
    let rest: [&dyn Fn(usize) -> T; 4] = [&|c| along[c] * scale[c], &|c| total[c], &|c| -factor[c] * total[c], &|c| {
        T::of(-0.5) * along[c] * gamma.data()[c] * scale[c] * scale[c] * scale[c]
    }];
    for (slot, f) in (1..).zip(rest) {
        // The batch's own statistics do not depend on the stored ones.
        if b.wants(slot) && !(batch && slot > 2) {
            grads[slot] = Some(per_channel(f));
        }
    }
    Ok(grads)
}
