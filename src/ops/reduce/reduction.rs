//! The reductions: axes are an attribute before operator set 13 (ReduceSum) or 18 (the others), an input as of it.

use crate::error::{Error, Result};
use crate::ir::Dim;
use crate::math::{Array, Blocks, View, elementwise2, sum};
use crate::ops::axes::{AxisLinks, LinkContext, input, output as out};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{Listed, add_dims, attribute_to_input, axis_mask, int, listed, mul_dims, output, vector};
use crate::ops::spec::{ChannelRole, InferContext, Inferred, OpSpec, Schema, Upgrade, op};

/// One value per group of elements along some axes.
pub struct Reduction;

fn axes_input_since(cx: &InferContext) -> i64 {
    if &*cx.node.op.op_type == "ReduceSum" { 13 } else { 18 }
}

impl OpSpec for Reduction {
    fn schemas(&self) -> &'static [Schema] {
        &const {
            [
                op("ReduceMean", &[1, 11, 13, 18]),
                op("ReduceSum", &[1, 11, 13]),
                op("ReduceMax", &[1, 11, 12, 13, 18, 20]),
                op("ReduceMin", &[1, 11, 12, 13, 18, 20]),
                op("ReduceProd", &[1, 11, 13, 18]),
                op("ReduceL1", &[1, 11, 13, 18]),
                op("ReduceL2", &[1, 11, 13, 18]),
                op("ReduceSumSquare", &[1, 11, 13, 18]),
                op("ReduceLogSum", &[1, 11, 13, 18]),
                op("ReduceLogSumExp", &[1, 11, 13, 18]),
            ]
        }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let mut out = output(cx.elem(0), shape(cx)?)?;
        if let [inferred] = &mut out[..] {
            inferred.data = data(cx);
        }
        Ok(out)
    }

    fn channels(&self, cx: &InferContext, axis: usize) -> ChannelRole {
        let homogeneous = matches!(&*cx.node.op.op_type, "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin");
        let (Some(shape), Ok(Listed::Known(axes))) = (cx.shape(0), listed(cx, "axes", 1, axes_input_since(cx))) else {
            return ChannelRole::Barrier;
        };
        let Ok(mask) = axis_mask(&axes, shape.len()) else { return ChannelRole::Barrier };
        // What is before the channels stays, so that their axis does.
        let behind = !axes.is_empty() && mask.iter().take(axis + 1).all(|gone| !gone);
        if homogeneous && behind { ChannelRole::same(axis) } else { ChannelRole::Barrier }
    }

    fn gradient(&self, _cx: &InferContext) -> Option<Rule> {
        rule!(forward, backward)
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        let since = axes_input_since(cx);
        if cx.opset < since && to >= since { attribute_to_input(cx, "axes", 1) } else { Upgrade::Same }
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let shape = cx.cx.shape(0)?;
        let keep = int(cx.cx, "keepdims", 1).ok()? != 0;
        let mask = match listed(cx.cx, "axes", 1, axes_input_since(cx.cx)).ok()? {
            Listed::Unknown => return None,
            Listed::Known(axes) if !axes.is_empty() => axis_mask(&axes, shape.len()).ok()?,
            _ => vec![int(cx.cx, "noop_with_empty_axes", 0).ok()? == 0; shape.len()],
        };
        Some(reduction_links(&mask, keep, "reduces over it"))
    }
}

fn shape(cx: &InferContext) -> Result<Option<Vec<Dim>>> {
    let keep = int(cx, "keepdims", 1)? != 0;
    let Some(shape) = cx.shape(0) else { return Ok(None) };
    let mask = match listed(cx, "axes", 1, axes_input_since(cx))? {
        Listed::Unknown if keep => return Ok(Some(vec![Dim::Unknown; shape.len()])),
        Listed::Unknown => return Ok(None),
        Listed::Known(axes) if !axes.is_empty() => axis_mask(&axes, shape.len())?,
        // No axes: all of them, unless the node says otherwise.
        _ => vec![int(cx, "noop_with_empty_axes", 0)? == 0; shape.len()],
    };
    Ok(Some(reduced(shape, &mask, keep)))
}

/// The shape with the masked axes removed, or of size 1.
pub fn reduced(shape: &[Dim], mask: &[bool], keep: bool) -> Vec<Dim> {
    let sizes = shape.iter().zip(mask).filter(|(_, gone)| keep || !**gone);
    sizes.map(|(d, &gone)| if gone { Dim::Known(1) } else { d.clone() }).collect()
}

/// The axes that stay go with those of the output; the others are a barrier.
pub fn reduction_links(mask: &[bool], keep: bool, reason: &'static str) -> AxisLinks {
    let mut links = AxisLinks::default();
    let mut at = 0;
    for (k, &gone) in mask.iter().enumerate() {
        if gone {
            links.inexact(input(0, k), reason);
            if keep {
                links.free(out(0, at));
            }
        } else {
            links.same(input(0, k), out(0, at));
        }
        at += usize::from(keep || !gone);
    }
    links
}

/// Shape arithmetic: a vector of sizes reduced to one number.
fn data(cx: &InferContext) -> Option<Vec<Dim>> {
    let [_] = cx.shape(0)? else { return None };
    let over_all = match listed(cx, "axes", 1, axes_input_since(cx)).ok()? {
        Listed::Known(axes) if !axes.is_empty() => true,
        Listed::Unknown => false,
        _ => int(cx, "noop_with_empty_axes", 0).ok()? == 0,
    };
    if !over_all || !cx.elem(0)?.is_int() {
        return None;
    }
    let sizes = vector(cx, 0)?;
    let reduced = match &*cx.node.op.op_type {
        "ReduceProd" => sizes.iter().fold(Dim::Known(1), |a, b| mul_dims(&a, b)),
        "ReduceSum" => sizes.iter().fold(Dim::Known(0), |a, b| add_dims(&a, b)),
        _ => return None,
    };
    Some(vec![reduced])
}

/// Which axes are reduced, in numbers.
fn mask(cx: &InferContext, rank: usize) -> Result<Vec<bool>> {
    match listed(cx, "axes", 1, axes_input_since(cx))? {
        Listed::Unknown => Err(Error::unsupported("its axes are not known before it is executed")),
        Listed::Known(axes) if !axes.is_empty() => axis_mask(&axes, rank),
        _ => Ok(vec![int(cx, "noop_with_empty_axes", 0)? == 0; rank]),
    }
}

/// One number per row of `n` elements.
fn per_row<T: Element>(op: &str, rows: &[T], n: usize) -> Vec<T> {
    let row = |x: &[T]| match op {
        "ReduceMax" => x.iter().fold(T::neg_infinity(), |m, &x| m.max(x)),
        "ReduceMin" => x.iter().fold(T::infinity(), |m, &x| m.min(x)),
        "ReduceProd" => x.iter().fold(T::one(), |m, &x| m * x),
        "ReduceL1" => x.iter().map(|x| x.abs()).sum(),
        "ReduceL2" => x.iter().map(|&x| x * x).sum::<T>().sqrt(),
        "ReduceSumSquare" => x.iter().map(|&x| x * x).sum(),
        "ReduceLogSum" => sum(x).ln(),
        _ => {
            let top = x.iter().fold(T::neg_infinity(), |m, &x| m.max(x));
            top + x.iter().map(|&x| (x - top).exp()).sum::<T>().ln()
        }
    };
    rows.chunks(n).map(row).collect()
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let (x, op) = (f.float(0)?, &*f.cx.node.op.op_type);
    let dims = f.shape()?;
    let blocks = Blocks::new(x.dims(), &mask(f.cx, x.rank())?);
    if matches!(op, "ReduceSum" | "ReduceMean") {
        let total = blocks.sum(x).reshaped(&dims);
        let by = T::one() / T::of(blocks.count().max(1) as f64);
        return Ok(Computed::one(if op == "ReduceMean" { total.map(|t| t * by) } else { total }));
    }
    if x.is_empty() && dims.iter().product::<usize>() > 0 {
        return Err(Error::unsupported("it reduces no elements"));
    }
    Ok(Computed::one(Array::new(&dims, per_row(op, &blocks.gathered(x), blocks.count().max(1)))))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let (x, y, dy, op) = (b.float(0)?, b.output()?, b.grad()?, &*b.cx.node.op.op_type);
    let mask = mask(b.cx, x.rank())?;
    let blocks = Blocks::new(x.dims(), &mask);
    let kept: Vec<usize> = x.dims().iter().zip(&mask).map(|(&d, &gone)| if gone { 1 } else { d }).collect();
    let spread = |a: &Array<T>| View::dense(&kept).broadcast(x.dims()).read(a.data());
    if matches!(op, "ReduceSum" | "ReduceMean") {
        let by = T::one() / T::of(blocks.count().max(1) as f64);
        let dy = if op == "ReduceMean" { dy.map(|d| d * by) } else { dy.clone() };
        return Ok(b.first(Array::new(x.dims(), spread(&dy))));
    }
    let (zero, data) = (T::zero(), x.data());
    let slopes = match op {
        "ReduceMax" | "ReduceMin" => {
            // Equal elements share the gradient.
            let hits = elementwise2(data, &spread(y), |x, y| if x == y { T::one() } else { zero });
            let counts = blocks.sum(&Array::new(x.dims(), hits.clone()));
            elementwise2(&hits, &spread(&counts), |h, c| h / c)
        }
        "ReduceProd" => {
            let mut slopes = Array::zeros(x.dims());
            let rows = blocks.gathered(x);
            let others = rows.chunks(blocks.count().max(1)).flat_map(products_of_others);
            blocks.view().add_to(slopes.data_mut(), &others.collect::<Vec<T>>());
            slopes.data().to_vec()
        }
        "ReduceL1" => x.map(|x| if x == zero { zero } else { x.signum() }).data().to_vec(),
        "ReduceL2" => elementwise2(data, &spread(y), |x, y| if y == zero { zero } else { x / y }),
        "ReduceSumSquare" => x.map(|x| x + x).data().to_vec(),
        "ReduceLogSum" => spread(&y.map(|y| (-y).exp())),
        _ => elementwise2(data, &spread(y), |x, y| (x - y).exp()),
    };
    Ok(b.first(Array::new(x.dims(), elementwise2(&slopes, &spread(dy), |s, d| s * d))))
}

/// For each element, the product of all others.
fn products_of_others<T: Element>(row: &[T]) -> Vec<T> {
    let mut after = vec![T::one(); row.len()];
    for k in (1..row.len()).rev() {
        after[k - 1] = after[k] * row[k];
    }
    let mut before = T::one();
    for (product, &x) in after.iter_mut().zip(row) {
        *product *= before;
        before *= x;
    }
    after
}
