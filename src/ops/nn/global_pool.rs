//! GlobalAveragePool, GlobalMaxPool and GlobalLpPool.

use crate::error::Result;
use crate::ir::Dim;
use crate::math::{Array, View, elementwise2, sum};
use crate::ops::axes::{AxisLinks, LinkContext};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::legacy::integer_exponent;
use crate::ops::rules::{is_f32, output, require_rank};
use crate::ops::spec::{ChannelRole, InferContext, Inferred, OpSpec, QuantRole, Schema, Upgrade, op};

/// Pools over all spatial axes.
pub struct GlobalPool;

impl OpSpec for GlobalPool {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("GlobalAveragePool", &[1, 22]), op("GlobalMaxPool", &[1, 22]), op("GlobalLpPool", &[1, 2, 22])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        require_rank(cx, 0, 2)?;
        let pooled =
            |s: &[Dim]| s.iter().enumerate().map(|(i, d)| if i < 2 { d.clone() } else { Dim::Known(1) }).collect();
        output(cx.elem(0), cx.shape(0).map(pooled))
    }

    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        if &*cx.node.op.op_type == "GlobalLpPool" { None } else { rule!(forward, backward) }
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        match &*cx.node.op.op_type {
            "GlobalAveragePool" if is_f32(cx, 0) => QuantRole::Elementwise { inputs: vec![0] },
            // GlobalMaxPool would pass the scale through, but unlike MaxPool it takes no integers.
            _ => QuantRole::Opaque,
        }
    }

    fn channels(&self, _cx: &InferContext, axis: usize) -> ChannelRole {
        if axis == 1 { ChannelRole::same(axis) } else { ChannelRole::Barrier }
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        if cx.opset < 2 && to >= 2 && &*cx.node.op.op_type == "GlobalLpPool" {
            integer_exponent(cx)
        } else {
            Upgrade::Same
        }
    }

    fn axis_links(&self, _: &LinkContext) -> Option<AxisLinks> {
        let mut links = AxisLinks::default();
        links.same_rest(0, 0, 0..2);
        Some(links)
    }
}

fn plane(dims: &[usize]) -> usize {
    dims[2..].iter().product()
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let (x, average) = (f.float(0)?, &*f.cx.node.op.op_type == "GlobalAveragePool");
    let n = plane(x.dims()).max(1);
    let of = |plane: &[T]| match average {
        true => sum(plane) / T::of(n as f64),
        false => plane.iter().fold(T::neg_infinity(), |m, &x| m.max(x)),
    };
    Ok(Computed::one(Array::new(&f.shape()?, x.data().chunks(n).map(of).collect())))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let (x, y, dy) = (b.float(0)?, b.output()?, b.grad()?);
    let spread = |a: &Array<T>| View::dense(a.dims()).broadcast(x.dims()).read(a.data());
    let n = plane(x.dims()).max(1);
    let dx = if &*b.cx.node.op.op_type == "GlobalAveragePool" {
        spread(&dy.map(|d| d / T::of(n as f64)))
    } else {
        // Equal elements share the gradient.
        let hits = elementwise2(x.data(), &spread(y), |x, y| if x == y { T::one() } else { T::zero() });
        let counts = Array::new(y.dims(), hits.chunks(n).map(sum).collect());
        let shares = elementwise2(&hits, &spread(&counts), |h, c| h / c);
        elementwise2(&shares, &spread(dy), |s, d| s * d)
    };
    Ok(b.first(Array::new(x.dims(), dx)))
}
