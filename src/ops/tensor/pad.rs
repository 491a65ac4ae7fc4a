//! Pad: amounts and the constant are attributes before operator set 11, inputs as of it; 18 adds axes.

use crate::error::{Error, Result};
use crate::ir::{Dim, Tensor};
use crate::math::Array;
use crate::ops::axes::{AxisLinks, AxisMap, Kept, LinkContext, Narrowed, input, output as out};
use crate::ops::gradient::{AxisMaps, Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::legacy::scalar;
use crate::ops::rules::{Listed, add_dims, axis, float, is_f32, known_vector, listed, output, string, without};
use crate::ops::spec::{ChannelRole, InferContext, Inferred, OpSpec, QuantRole, Schema, Upgrade, op};

/// Adds (or, with negative amounts, removes) elements at the ends of axes.
pub struct Pad;

impl OpSpec for Pad {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Pad", &[1, 2, 11, 13, 18, 19, 21, 23, 24, 25])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(cx.elem(0), shape(cx)?)
    }

    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        if cx.opset < 2 { None } else { rule!(forward, backward) }
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        // Padding with a constant would need that constant in the input's scale.
        match string(cx, "mode", "constant") {
            Ok("reflect" | "edge" | "wrap") if is_f32(cx, 0) => QuantRole::PassThrough { input: 0 },
            _ => QuantRole::Opaque,
        }
    }

    fn channels(&self, cx: &InferContext, axis: usize) -> ChannelRole {
        let repeats = matches!(string(cx, "mode", "constant"), Ok("reflect" | "edge" | "wrap"));
        // Zero times any factor is zero.
        let zero = if cx.opset < 11 {
            float(cx, "value", 0.0).is_ok_and(|x| x == 0.0)
        } else {
            !cx.present(2) || cx.constant(2).and_then(Tensor::scalar_f32) == Some(0.0)
        };
        let Ok(Some(padded)) = shape(cx) else { return ChannelRole::Barrier };
        let unpadded = cx.shape(0).and_then(|s| s.get(axis)).is_some_and(|d| padded.get(axis) == Some(d));
        if unpadded && (repeats || zero) { ChannelRole::same(axis) } else { ChannelRole::Barrier }
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        if cx.opset >= 11 || to < 11 {
            return Upgrade::Same;
        }
        let (Some(pads), Ok(value)) = (cx.node.ints(name(cx)), float(cx, "value", 0.0)) else {
            return Upgrade::Impossible("its attribute \"pads\" is missing".into());
        };
        let mut new_inputs = vec![(1, Tensor::from_i64(&[pads.len()], pads))];
        match scalar(cx.elem(0), value) {
            _ if value == 0.0 => {}
            Some(constant) => new_inputs.push((2, constant)),
            None => return Upgrade::Impossible("the element type of its input is not known".into()),
        }
        Upgrade::Changed { node: Box::new(without(cx.node, &["paddings", "pads", "value"])), new_inputs }
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let rank = cx.rank(0)?;
        let amounts = amounts(cx.cx, rank)?;
        let constant = matches!(string(cx.cx, "mode", "constant"), Ok("constant"));
        let mut links = AxisLinks::default();
        for (k, (before, after)) in amounts.into_iter().enumerate() {
            match (before, after) {
                (0, 0) => links.same(input(0, k), out(0, k)),
                // What is added may go with what it is added to elsewhere.
                (0.., 0..) if constant && cx.cx.opset >= 11 => {
                    links.link(input(0, k), out(0, k), AxisMap::Offset { start: before, step: 1 });
                }
                _ => {}
            }
        }
        Some(links)
    }

    fn narrow(&self, cx: &LinkContext, kept: &Kept) -> Narrowed {
        let Some((rank, mut all)) = cx.rank(0).and_then(|rank| Some((rank, amounts(cx.cx, rank)?))) else {
            return Narrowed::Same;
        };
        let mut changed = false;
        for (k, (before, after)) in all.iter_mut().enumerate() {
            let (Some(left), Some(n)) = (kept.of(out(0, k)), cx.size(out(0, k))) else { continue };
            if (*before, *after) == (0, 0) {
                continue;
            }
            let (low, high) = (*before as usize, n - *after as usize);
            *before = left.iter().filter(|&&i| i < low).count() as i64;
            *after = left.iter().filter(|&&i| i >= high).count() as i64;
            changed = true;
        }
        if !changed {
            return Narrowed::Same;
        }
        let pads: Vec<i64> = all.iter().map(|p| p.0).chain(all.iter().map(|p| p.1)).collect();
        let mut inputs = vec![(1, Tensor::from_i64(&[pads.len()], &pads))];
        if cx.cx.present(3) {
            let axes: Vec<i64> = (0..rank as i64).collect();
            inputs.push((3, Tensor::from_i64(&[rank], &axes)));
        }
        Narrowed::with_inputs(cx.cx.node, inputs)
    }
}

/// Attribute that holds the amounts.
fn name(cx: &InferContext) -> &'static str {
    if cx.opset < 2 { "paddings" } else { "pads" }
}

fn shape(cx: &InferContext) -> Result<Option<Vec<Dim>>> {
    let Some(shape) = cx.shape(0) else { return Ok(None) };
    let rank = shape.len();
    let pads = match listed(cx, name(cx), 1, 11)? {
        Listed::Known(pads) => pads,
        Listed::Unknown => return Ok(Some(vec![Dim::Unknown; rank])),
        Listed::Absent => return Err(Error::invalid("its pads are missing")),
    };
    let axes: Vec<i64> = if cx.opset >= 18 && cx.present(3) {
        match known_vector(cx, 3) {
            Some(axes) => axes,
            None => return Ok(Some(vec![Dim::Unknown; rank])),
        }
    } else {
        (0..rank as i64).collect()
    };
    if Some(pads.len()) != axes.len().checked_mul(2) {
        return Err(Error::invalid(format!("it has {} pads for {} axes", pads.len(), axes.len())));
    }
    let mut padded = shape.to_vec();
    for (i, &a) in axes.iter().enumerate() {
        let at = axis(a, rank)?;
        let both = add_dims(&Dim::Known(pads[i]), &Dim::Known(pads[i + axes.len()]));
        padded[at] = add_dims(&shape[at], &both);
        if let Dim::Known(n) = padded[at]
            && n < 0
        {
            return Err(Error::invalid(format!("its pads {pads:?} remove more than there is")));
        }
    }
    Ok(Some(padded))
}

/// What is added before and after each axis, where it is known.
fn amounts(cx: &InferContext, rank: usize) -> Option<Vec<(i64, i64)>> {
    let Listed::Known(pads) = listed(cx, name(cx), 1, 11).ok()? else { return None };
    let axes: Vec<i64> =
        if cx.opset >= 18 && cx.present(3) { known_vector(cx, 3)? } else { (0..rank as i64).collect() };
    let mut all = vec![(0, 0); rank];
    for (i, &a) in axes.iter().enumerate() {
        all[axis(a, rank).ok()?] = (*pads.get(i)?, *pads.get(i + axes.len())?);
    }
    Some(all)
}

fn known_amounts(cx: &InferContext, rank: usize) -> Result<Vec<(i64, i64)>> {
    amounts(cx, rank).ok_or_else(|| Error::unsupported("its amounts are not known before it is executed"))
}

/// Where each element of the padded axes comes from.
fn maps<T: Element>(cx: &InferContext, dims: &[usize]) -> Result<AxisMaps<T>> {
    let mode = string(cx, "mode", "constant")?;
    let source = |i: i64, n: i64| match mode {
        "edge" => Some(i.clamp(0, n - 1)),
        "wrap" => Some(i.rem_euclid(n)),
        "reflect" if n > 1 => {
            let period = i.rem_euclid(2 * (n - 1));
            Some(period.min(2 * (n - 1) - period))
        }
        "reflect" => Some(0),
        _ => Some(i).filter(|i| (0..n).contains(i)),
    };
    let mut maps = vec![];
    for (at, (before, after)) in known_amounts(cx, dims.len())?.into_iter().enumerate().filter(|(_, a)| *a != (0, 0)) {
        let n = dims[at] as i64;
        let of = |i: i64| source(i, n).filter(|_| n > 0).map(|j| (j as usize, T::one())).into_iter().collect();
        maps.push((at, (-before..n + after).map(of).collect()));
    }
    Ok(AxisMaps { maps })
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let x = f.float(0)?;
    let maps = maps(f.cx, x.dims())?;
    let mut y = maps.apply(x);
    let value = match f.cx.opset < 11 {
        true => T::of(float(f.cx, "value", 0.0)?.into()),
        false => f.optional(2).and_then(|c| c.data().first().copied()).unwrap_or_default(),
    };
    if value != T::zero() && string(f.cx, "mode", "constant")? == "constant" {
        // What is made of nothing is padding.
        let inside = maps.apply(&Array::full(x.dims(), T::one()));
        let elements = y.data_mut().iter_mut().zip(inside.data());
        elements.filter(|(_, inside)| **inside == T::zero()).for_each(|(y, _)| *y = value);
    }
    Ok(Computed::one(y))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let (x, dy) = (b.float(0)?, b.grad()?);
    let maps = maps(b.cx, x.dims())?;
    let mut grads = b.first(maps.apply_backward(x.dims(), dy));
    if b.wants(2) {
        let inside = maps.apply(&Array::full(x.dims(), T::one()));
        let outside = dy.data().iter().zip(inside.data()).filter(|(_, i)| **i == T::zero());
        grads[2] = Some(Array::full(b.float(2)?.dims(), outside.map(|(d, _)| *d).sum()));
    }
    Ok(grads)
}
