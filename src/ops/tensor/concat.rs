//! Concat.

use crate::error::{Error, Result};
use crate::ir::{AttributeValue, Dim};
use crate::math::{Array, View};
use crate::ops::axes::{AxisLinks, AxisMap, LinkContext, input, output as out};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{DATA_LIMIT, add_dims, axis, int, is_f32, merge_dim, output, vector};
use crate::ops::spec::{InferContext, Inferred, OpSpec, QuantRole, Schema, Upgrade, op};

/// Joins tensors along an axis.
pub struct Concat;

/// Shape of the inputs at `slots` joined along `at`.
pub fn concat_shape(cx: &InferContext, at: i64, slots: impl Iterator<Item = usize>) -> Result<Option<Vec<Dim>>> {
    let mut joined: Option<Vec<Dim>> = None;
    for k in slots {
        let Some(shape) = cx.shape(k) else { return Ok(None) };
        let Some(so_far) = &mut joined else {
            axis(at, shape.len())?;
            joined = Some(shape.to_vec());
            continue;
        };
        if so_far.len() != shape.len() {
            return Err(Error::invalid(format!("its inputs have ranks {} and {}", so_far.len(), shape.len())));
        }
        let at = axis(at, shape.len())?;
        for (i, (a, b)) in so_far.iter_mut().zip(shape).enumerate() {
            *a = if i == at {
                add_dims(a, b)
            } else {
                let differ = || Error::invalid(format!("its inputs have sizes {a} and {b} at axis {i}"));
                merge_dim(a, b).ok_or_else(differ)?
            };
        }
    }
    Ok(joined)
}

impl OpSpec for Concat {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Concat", &[1, 4, 11, 13])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let at = int(cx, "axis", if cx.opset < 4 { 1 } else { i64::MAX })?;
        if at == i64::MAX {
            return Err(Error::invalid("attribute \"axis\" is missing"));
        }
        let shape = concat_shape(cx, at, 0..cx.inputs.len())?;
        let vectors = shape.as_ref().is_some_and(|s| s.len() == 1);
        let mut out = output((0..cx.inputs.len()).find_map(|k| cx.elem(k)), shape)?;
        if let [inferred] = &mut out[..]
            && vectors
        {
            inferred.data = data(cx);
        }
        Ok(out)
    }

    fn gradient(&self, _cx: &InferContext) -> Option<Rule> {
        rule!(forward, backward)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if is_f32(cx, 0) { QuantRole::Unify } else { QuantRole::Opaque }
    }

    fn upgrade(&self, cx: &InferContext, _to: i64) -> Upgrade {
        if cx.opset >= 4 || cx.node.attribute("axis").is_some() {
            return Upgrade::Same;
        }
        let mut node = cx.node.clone();
        node.set("axis", AttributeValue::Int(1));
        Upgrade::Changed { node: Box::new(node), new_inputs: vec![] }
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let rank = cx.rank(0)?;
        let at = axis(int(cx.cx, "axis", 1).ok()?, rank).ok()?;
        let mut links = AxisLinks::default();
        let mut start = 0;
        for k in 0..cx.cx.inputs.len() {
            links.same_rest(k, 0, (0..rank).filter(|&a| a != at));
            let size = cx.size(input(k, at))?;
            links.link(input(k, at), out(0, at), AxisMap::Offset { start, step: 1 });
            start += size as i64;
        }
        Some(links)
    }
}

fn data(cx: &InferContext) -> Option<Vec<Dim>> {
    let mut joined = vec![];
    for k in 0..cx.inputs.len() {
        joined.extend(vector(cx, k)?);
        if joined.len() > DATA_LIMIT {
            return None;
        }
    }
    Some(joined)
}

fn at<T: Element>(cx: &InferContext, first: &Array<T>) -> Result<usize> {
    axis(int(cx, "axis", 1)?, first.rank())
}

/// Part of the output, as a view of it, that each input becomes.
fn parts<T: Element>(inputs: &[&Array<T>], dims: &[usize], at: usize) -> Vec<View> {
    let mut start = 0;
    let mut part = |x: &&Array<T>| {
        let size = x.dims()[at];
        let view = View::dense(dims).cut(at, start, size, 1);
        start += size;
        view
    };
    inputs.iter().map(&mut part).collect()
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let inputs: Vec<&Array<T>> = (0..f.inputs.len()).map(|k| f.float(k)).collect::<Result<_>>()?;
    let dims = f.shape()?;
    let at = at(f.cx, f.float(0)?)?;
    let mut y = Array::zeros(&dims);
    let data = y.data_mut();
    parts(&inputs, &dims, at).iter().zip(&inputs).for_each(|(view, x)| view.add_to(data, x.data()));
    Ok(Computed::one(y))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let inputs: Vec<&Array<T>> = (0..b.inputs.len()).map(|k| b.float(k)).collect::<Result<_>>()?;
    let dy = b.grad()?;
    let parts = parts(&inputs, dy.dims(), at(b.cx, b.float(0)?)?);
    let part = |(k, view): (usize, View)| b.wants(k).then(|| Array::new(inputs[k].dims(), view.read(dy.data())));
    Ok(parts.into_iter().enumerate().map(part).collect())
}
