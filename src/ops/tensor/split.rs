//! Split: sizes are an attribute before operator set 13, an input as of it; 18 adds `num_outputs`, which a node without
//! sizes must then have.

use crate::error::{Error, Result};
use crate::ir::{AttributeValue, Dim, Node, Tensor};
use crate::math::{Array, View};
use crate::ops::axes::{AxisLinks, AxisMap, Kept, LinkContext, Narrowed, input, output as out};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{Listed, attribute_to_input, axis, int, is_f32, listed, without};
use crate::ops::spec::{InferContext, Inferred, OpSpec, QuantRole, Schema, Upgrade, op};

/// Cuts a tensor into pieces along an axis.
pub struct Split;

impl OpSpec for Split {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Split", &[1, 2, 11, 13, 18])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let at = int(cx, "axis", 0)?;
        let pieces = cx.node.output_slots as usize;
        let Some(shape) = cx.shape(0) else { return Ok(vec![Inferred::tensor(cx.elem(0), None); pieces]) };
        let at = axis(at, shape.len())?;
        let sizes = sizes(cx, &shape[at], pieces)?;
        let piece = |size: Dim| {
            let mut shape = shape.to_vec();
            shape[at] = size;
            Inferred::tensor(cx.elem(0), Some(shape))
        };
        Ok(sizes.into_iter().map(piece).collect())
    }

    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        if cx.opset < 2 { None } else { rule!(forward, backward) }
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if is_f32(cx, 0) { QuantRole::PassThrough { input: 0 } } else { QuantRole::Opaque }
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        if cx.opset < 2 && cx.present(1) {
            return Upgrade::Impossible("its form before operator set 2 is not supported".into());
        }
        let moved = if cx.opset < 13 && to >= 13 { attribute_to_input(cx, "split", 1) } else { Upgrade::Same };
        let equal_pieces = !cx.present(1) && cx.node.attribute("split").is_none();
        if cx.opset < 18 && to >= 18 && equal_pieces {
            let mut node: Node = cx.node.clone();
            node.set("num_outputs", AttributeValue::Int(cx.node.output_slots.into()));
            return Upgrade::Changed { node: Box::new(node), new_inputs: vec![] };
        }
        moved
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let rank = cx.rank(0)?;
        let at = axis(int(cx.cx, "axis", 0).ok()?, rank).ok()?;
        let sizes = sizes(cx.cx, &cx.cx.shape(0)?[at], cx.cx.node.output_slots as usize).ok()?;
        let mut links = AxisLinks::default();
        let mut start = 0;
        for (k, size) in sizes.iter().enumerate() {
            if cx.out_rank(k).is_some() {
                links.same_rest(0, k, (0..rank).filter(|&a| a != at));
                links.link(out(k, at), input(0, at), AxisMap::Offset { start, step: 1 });
            }
            start += size.known()? as i64;
        }
        links.free(input(0, at));
        Some(links)
    }

    fn narrow(&self, cx: &LinkContext, kept: &Kept) -> Narrowed {
        let Some(shape) = cx.cx.shape(0) else { return Narrowed::Same };
        let Ok(at) = int(cx.cx, "axis", 0).and_then(|at| axis(at, shape.len())) else { return Narrowed::Same };
        let Some(left) = kept.of(input(0, at)) else { return Narrowed::Same };
        let pieces = cx.cx.node.output_slots as usize;
        let Ok(sizes) = sizes(cx.cx, &shape[at], pieces) else { return Narrowed::Same };
        let (mut start, mut now) = (0, vec![]);
        for size in sizes.iter().map(|d| d.known().unwrap_or(0)) {
            now.push(left.iter().filter(|&&i| i >= start && i < start + size).count() as i64);
            start += size;
        }
        let mut node = without(cx.cx.node, &["num_outputs", "split"]);
        if cx.cx.opset < 13 {
            node.set("split", now.into());
            return Narrowed::Changed { node: Box::new(node), inputs: vec![] };
        }
        Narrowed::Changed { node: Box::new(node), inputs: vec![(1, Tensor::from_i64(&[pieces], &now))] }
    }
}

fn sizes(cx: &InferContext, whole: &Dim, pieces: usize) -> Result<Vec<Dim>> {
    match listed(cx, "split", 1, 13)? {
        Listed::Unknown => return Ok(vec![Dim::Unknown; pieces]),
        Listed::Known(sizes) => return given(&sizes, whole, pieces),
        Listed::Absent => {}
    }
    if cx.opset < 2 && cx.present(1) {
        return Ok(vec![Dim::Unknown; pieces]);
    }
    let n = int(cx, "num_outputs", pieces as i64)?;
    if n < 1 || n != pieces as i64 {
        return Err(Error::invalid(format!("attribute \"num_outputs\" is {n}, the node has {pieces} outputs")));
    }
    let Dim::Known(whole) = *whole else { return Ok(vec![if n == 1 { whole.clone() } else { Dim::Unknown }; pieces]) };
    let size = whole / n + i64::from(whole % n != 0);
    if size * n != whole && cx.opset < 18 {
        return Err(Error::invalid(format!("it splits {whole} elements into {n} equal pieces")));
    }
    Ok((0..n).map(|k| Dim::Known((whole - k.saturating_mul(size)).clamp(0, size))).collect())
}

fn given(sizes: &[i64], whole: &Dim, pieces: usize) -> Result<Vec<Dim>> {
    if sizes.len() != pieces {
        return Err(Error::invalid(format!("it has {pieces} outputs but {} sizes", sizes.len())));
    }
    let total = sizes.iter().try_fold(0i64, |n, &s| n.checked_add(s).filter(|_| s >= 0));
    match (total, whole) {
        (None, _) => Err(Error::invalid(format!("impossible sizes {sizes:?}"))),
        (Some(n), Dim::Known(whole)) if n != *whole => {
            Err(Error::invalid(format!("sizes {sizes:?} do not add up to {whole}")))
        }
        _ => Ok(sizes.iter().copied().map(Dim::Known).collect()),
    }
}

/// The part of the input that each output is.
fn parts(cx: &InferContext, dims: &[usize], shapes: &[Vec<usize>]) -> Result<Vec<View>> {
    let at = axis(int(cx, "axis", 0)?, dims.len())?;
    let mut start = 0;
    let part = |shape: &Vec<usize>| {
        let view = View::dense(dims).cut(at, start, shape[at], 1);
        start += shape[at];
        view
    };
    Ok(shapes.iter().map(part).collect())
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let (x, shapes) = (f.float(0)?, f.shapes()?);
    let views = parts(f.cx, x.dims(), &shapes)?;
    let mut computed = Computed::one(Array::zeros(&[0]));
    computed.outputs = views.iter().map(|v| Some(Array::new(&v.dims, v.read(x.data())))).collect();
    Ok(computed)
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let x = b.float(0)?;
    let mut dx = Array::zeros(x.dims());
    for (view, dy) in parts(b.cx, x.dims(), &b.shapes()?)?.iter().zip(b.grads) {
        if let Some(dy) = dy {
            view.add_to(dx.data_mut(), dy.data());
        }
    }
    Ok(b.first(dx))
}
