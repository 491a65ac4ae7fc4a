//! Gather.

use crate::error::Result;
use crate::ir::{Dim, Port, Tensor};
use crate::math::Array;
use crate::ops::axes::{AxisFact, AxisLinks, AxisMap, Kept, LinkContext, Narrowed, input, output as out};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{axis, int, is_f32, known_vector, output, vector};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Purpose, QuantRole, Schema, WeightRole, op};

/// Picks slices along an axis.
pub struct Gather;

impl OpSpec for Gather {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Gather", &[1, 11, 13])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let at = int(cx, "axis", 0)?;
        let Some(shape) = cx.shape(0) else { return output(cx.elem(0), None) };
        let at = axis(at, shape.len())?;
        let Some(indices) = cx.shape(1) else { return output(cx.elem(0), None) };
        let gathered = [&shape[..at], indices, &shape[at + 1..]].concat();
        let data = if shape.len() == 1 && indices.len() <= 1 { data(cx) } else { None };
        let mut out = output(cx.elem(0), Some(gathered))?;
        if let [inferred] = &mut out[..] {
            inferred.data = data;
        }
        Ok(out)
    }

    fn gradient(&self, _cx: &InferContext) -> Option<Rule> {
        rule!(forward, backward)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if is_f32(cx, 0) { QuantRole::PassThrough { input: 0 } } else { QuantRole::Opaque }
    }

    fn weight(&self, cx: &InferContext) -> Option<WeightRole> {
        let rows = cx.shape(0)?.len() == 2 && axis(int(cx, "axis", 0).ok()?, 2).ok()? == 0;
        let purpose = Purpose::Table { indices: 1 };
        rows.then_some(WeightRole { slot: 0, channel_axis: 0, block_axis: 1, purpose })
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let (rank, picked) = (cx.rank(0)?, cx.rank(1)?);
        let at = axis(int(cx.cx, "axis", 0).ok()?, rank).ok()?;
        let mut links = AxisLinks::default();
        links.same_rest(0, 0, 0..at);
        for k in at + 1..rank {
            links.same(input(0, k), out(0, k + picked - 1));
        }
        (0..picked).for_each(|k| links.same(input(1, k), out(0, at + k)));
        if let (Some(all), Some(size), true) = (selected(cx.cx, at), cx.size(input(0, at)), picked <= 1) {
            links.0.retain(|fact| !matches!(fact, AxisFact::Link { a, .. } if a.port == Port::In(1)));
            if picked == 1 {
                links.free(input(1, 0)); // made anew
                links.link(out(0, at), input(0, at), AxisMap::Select(all));
            } else {
                // The one element stays; the others are free.
                let others = (0..size).filter(|i| !all.contains(i)).collect::<Vec<_>>();
                if others.len() < size {
                    links.barrier_at(input(0, at), all, "one of its elements is picked");
                }
            }
        }
        Some(links)
    }

    fn narrow(&self, cx: &LinkContext, kept: &Kept) -> Narrowed {
        let Some(at) = cx.rank(0).and_then(|rank| axis(int(cx.cx, "axis", 0).ok()?, rank).ok()) else {
            return Narrowed::Same;
        };
        let (from, to) = (input(0, at), out(0, at));
        let (Some(all), Some(picked)) = (selected(cx.cx, at), cx.rank(1)) else { return Narrowed::Same };
        let cut_output = picked == 1 && kept.of(to).is_some();
        if kept.of(from).is_none() && !cut_output {
            return Narrowed::Same;
        }
        let left = |(k, _): &(usize, &usize)| picked == 0 || kept.position(to, *k).is_some();
        let now: Option<Vec<i64>> =
            all.iter().enumerate().filter(left).map(|(_, &i)| kept.position(from, i).map(|i| i as i64)).collect();
        let Some(now) = now else {
            return Narrowed::Impossible("an element that it picks was removed".into());
        };
        let dims: &[usize] = if picked == 0 { &[] } else { &[now.len()] };
        Narrowed::with_inputs(cx.cx.node, vec![(1, Tensor::from_i64(dims, &now))])
    }

    fn selects(&self, cx: &InferContext) -> Option<Vec<usize>> {
        (cx.shape(0)?.len() == 1).then(|| selected(cx, 0))?
    }
}

fn data(cx: &InferContext) -> Option<Vec<Dim>> {
    let (data, indices) = (vector(cx, 0)?, known_vector(cx, 1)?);
    indices.into_iter().map(|i| data.get(axis(i, data.len()).ok()?).cloned()).collect()
}

/// The elements that constant indices pick along axis `at`, counted from the front.
fn selected(cx: &InferContext, at: usize) -> Option<Vec<usize>> {
    let size = cx.shape(0)?.get(at)?.known()?;
    cx.constant(1)?.to_i64().ok()?.into_iter().map(|i| axis(i, size).ok()).collect()
}

/// Blocks before the axis, size of the axis, elements after it; and the positions to pick.
fn picks<T: Element>(cx: &InferContext, x: &Array<T>, indices: &[i64]) -> Result<([usize; 3], Vec<usize>)> {
    let at = axis(int(cx, "axis", 0)?, x.rank())?;
    let (size, inner) = (x.dims()[at], x.dims()[at + 1..].iter().product());
    let picks: Result<Vec<usize>> = indices.iter().map(|&i| axis(i, size)).collect();
    Ok(([x.dims()[..at].iter().product(), size, inner], picks?))
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let x = f.float(0)?;
    let ([outer, size, inner], picks) = picks(f.cx, x, &f.integers(1)?.0)?;
    let mut y = Vec::with_capacity(outer * picks.len() * inner);
    for block in 0..outer {
        picks.iter().for_each(|&i| y.extend_from_slice(&x.data()[(block * size + i) * inner..][..inner]));
    }
    Ok(Computed::one(Array::new(&f.shape()?, y)))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let (x, dy) = (b.float(0)?, b.grad()?);
    let ([outer, size, inner], picks) = picks(b.cx, x, &b.integers(1)?.0)?;
    let mut dx = Array::zeros(x.dims());
    let data = dx.data_mut();
    let places = (0..outer).flat_map(|block| picks.iter().map(move |&i| (block * size + i) * inner));
    for (at, dy) in places.zip(dy.data().chunks(inner.max(1))) {
        data[at..at + inner].iter_mut().zip(dy).for_each(|(x, &y)| *x += y);
    }
    Ok(b.first(dx))
}
