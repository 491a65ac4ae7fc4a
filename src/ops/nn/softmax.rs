//! Softmax, LogSoftmax and Hardmax. Before operator set 13 they flatten their input to a matrix at `axis` (default 1) and
//! work on its rows; as of it they work along one axis (default -1).

use crate::error::Result;
use crate::ir::{AttributeValue, Dim};
use crate::math::{Array, View, log_softmax, log_softmax_backward, softmax, softmax_backward};
use crate::ops::axes::{AxisLinks, LinkContext, elementwise_links, input};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::legacy::step;
use crate::ops::rules::{axis, changed, int, is_f32, same_as};
use crate::ops::spec::{InferContext, Inferred, OpSpec, QuantRole, Schema, Source, Step, Upgrade, op};

/// Normalizes along an axis.
pub struct Softmax;

impl OpSpec for Softmax {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Softmax", &[1, 11, 13]), op("LogSoftmax", &[1, 11, 13]), op("Hardmax", &[1, 11, 13])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let given = int(cx, "axis", if cx.opset < 13 { 1 } else { -1 })?;
        if let Some(rank) = cx.shape(0).map(<[Dim]>::len) {
            // Flattening may begin after the last axis.
            let end = i64::try_from(rank).is_ok_and(|r| r == given) && cx.opset < 13;
            if !end {
                axis(given, rank)?;
            }
        }
        same_as(cx, 0)
    }

    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        if &*cx.node.op.op_type == "Hardmax" { None } else { rule!(forward, backward) }
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        match &*cx.node.op.op_type {
            "Softmax" if is_f32(cx, 0) => QuantRole::Elementwise { inputs: vec![0] },
            _ => QuantRole::Opaque,
        }
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        if cx.opset >= 13 || to < 13 {
            return Upgrade::Same;
        }
        let Ok(given) = int(cx, "axis", 1) else {
            return Upgrade::Impossible("its attribute \"axis\" is not an integer".into());
        };
        if let Some(along) = single_axis(cx, given) {
            let mut node = cx.node.clone();
            node.set("axis", AttributeValue::Int(along));
            return changed(node);
        }
        let all_filled = cx.shape(0).is_some_and(|s| s.iter().all(|d| matches!(d, Dim::Known(n) if *n > 0)));
        if to < 14 && !all_filled {
            return Upgrade::Impossible(
                "its input might be empty, which no Reshape before operator set 14 keeps".into(),
            );
        }
        // As it was defined: rows of a matrix, in the input's shape again.
        let mut rows = cx.node.clone();
        rows.name = "".into();
        rows.set("axis", AttributeValue::Int(-1));
        let exact: &[(&str, AttributeValue)] = if to < 14 { &[] } else { &[("allowzero", AttributeValue::Int(1))] };
        let mut last = step("Reshape", vec![Source::Step(2), Source::Step(0)], exact);
        last.node.name = cx.node.name.clone();
        Upgrade::Replaced(vec![
            step("Shape", vec![Source::Input(0)], &[]),
            step("Flatten", vec![Source::Input(0)], &[("axis", AttributeValue::Int(given))]),
            Step { node: rows, inputs: vec![Source::Step(1)] },
            last,
        ])
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let rank = cx.rank(0)?;
        let mut links = elementwise_links(cx, 0)?;
        let along = if cx.cx.opset < 13 {
            let given = int(cx.cx, "axis", 1).ok()?;
            let from = if given == rank as i64 { rank } else { axis(given, rank).ok()? };
            from..rank
        } else {
            let at = axis(int(cx.cx, "axis", -1).ok()?, rank).ok()?;
            at..at + 1
        };
        along.for_each(|k| links.inexact(input(0, k), "normalizes along it"));
        Some(links)
    }
}

/// The one axis that a row of the matrix runs along, if every other axis from `given` on has size 1.
fn single_axis(cx: &InferContext, given: i64) -> Option<i64> {
    let shape = cx.shape(0)?;
    let at = axis(given, shape.len()).ok()?;
    let long: Vec<usize> = (at..shape.len()).filter(|&k| shape[k] != Dim::Known(1)).collect();
    match long[..] {
        [] => Some(shape.len() as i64 - 1),
        [k] => Some(k as i64),
        _ => None,
    }
}

/// The order of the axes in which rows are contiguous, and the length of a row.
fn rows(cx: &InferContext, dims: &[usize]) -> Result<(Vec<usize>, usize)> {
    let given = int(cx, "axis", if cx.opset < 13 { 1 } else { -1 })?;
    let mut order: Vec<usize> = (0..dims.len()).collect();
    if cx.opset < 13 {
        let at =
            if i64::try_from(dims.len()).is_ok_and(|r| r == given) { dims.len() } else { axis(given, dims.len())? };
        return Ok((order, dims[at..].iter().product()));
    }
    let at = axis(given, dims.len())?;
    order.remove(at);
    order.push(at);
    Ok((order, dims[at]))
}

/// `work` on the elements with rows contiguous; its result in the order of the array.
fn by_rows<T: Element>(x: &Array<T>, order: &[usize], work: impl Fn(&[T]) -> Vec<T>) -> Array<T> {
    if order.is_sorted() {
        return Array::new(x.dims(), work(x.data()));
    }
    let view = View::dense(x.dims()).permuted(order);
    let mut out = Array::zeros(x.dims());
    view.add_to(out.data_mut(), &work(&view.read(x.data())));
    out
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let x = f.float(0)?;
    let (order, n) = rows(f.cx, x.dims())?;
    let kernel = if &*f.cx.node.op.op_type == "Softmax" { softmax } else { log_softmax };
    Ok(Computed::one(by_rows(x, &order, |x| kernel(x, n))))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let (y, dy) = (b.output()?, b.grad()?);
    let (order, n) = rows(b.cx, y.dims())?;
    let kernel = if &*b.cx.node.op.op_type == "Softmax" { softmax_backward } else { log_softmax_backward };
    let dy = View::dense(dy.dims()).permuted(&order).read(dy.data());
    Ok(b.first(by_rows(y, &order, |y| kernel(y, &dy, n))))
}
