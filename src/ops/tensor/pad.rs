//! Pad: amounts and the constant are attributes before operator set 11, inputs as of it; 18 adds axes.

use crate::error::{Error, Result};
use crate::ir::{Dim, Tensor};
use crate::ops::axes::{AxisLinks, AxisMap, Kept, LinkContext, Narrowed, input, output as out};
use crate::ops::legacy::scalar;
use crate::ops::rules::{Listed, add_dims, axis, float, is_f32, known_vector, listed, output, string, without};
use crate::ops::spec::{InferContext, Inferred, OpSpec, QuantRole, Schema, Upgrade, op};

/// Adds (or, with negative amounts, removes) elements at the ends of axes.
pub struct Pad;

impl OpSpec for Pad {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Pad", &[1, 2, 11, 13, 18, 19, 21, 23, 24, 25])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(cx.elem(0), shape(cx)?)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        // Padding with a constant would need that constant in the input's scale.
        match string(cx, "mode", "constant") {
            Ok("reflect" | "edge" | "wrap") if is_f32(cx, 0) => QuantRole::PassThrough { input: 0 },
            _ => QuantRole::Opaque,
        }
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
