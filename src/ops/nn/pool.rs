//! AveragePool, MaxPool and LpPool.

use crate::error::Result;
use crate::ir::DType;
use crate::math::{Array, PoolGeometry, average_backward, average_forward, max_backward, max_forward};
use crate::ops::axes::{AxisLinks, LinkContext};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::legacy::integer_exponent;
use crate::ops::rules::{int, ints, is_f32};
use crate::ops::spec::{ChannelRole, InferContext, Inferred, OpSpec, QuantRole, Schema, Upgrade, op};
use crate::ops::window::{last_three, placed, pool_shape};

/// Pools with a window. They share their shape rule; the table of roles is in [`OpSpec::quant`].
pub struct Pool;

impl OpSpec for Pool {
    fn schemas(&self) -> &'static [Schema] {
        &const {
            [
                op("AveragePool", &[1, 7, 10, 11, 19, 22]),
                op("MaxPool", &[1, 8, 10, 11, 12, 22]),
                op("LpPool", &[1, 2, 11, 18, 22]),
            ]
        }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let shape = pool_shape(cx, 0, false)?;
        let indices = Inferred::tensor(Some(DType::I64), shape.clone());
        Ok(vec![Inferred::tensor(cx.elem(0), shape), indices])
    }

    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        let supported = match &*cx.node.op.op_type {
            "AveragePool" => true,
            "MaxPool" => cx.used_outputs < 2,
            _ => false,
        };
        let rank = cx.shape(0).map_or(0, <[_]>::len);
        if !supported || rank > 5 { None } else { rule!(forward, backward) }
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        let dilated = ints(cx, "dilations").ok().flatten().is_some_and(|d| d.iter().any(|&x| x != 1));
        match &*cx.node.op.op_type {
            _ if !is_f32(cx, 0) => QuantRole::Opaque,
            // Its second output holds positions, which no 8-bit kernel computes.
            "MaxPool" if cx.node.output_slots == 1 => QuantRole::PassThrough { input: 0 },
            // QLinearAveragePool has no dilations.
            "AveragePool" if !dilated => QuantRole::Elementwise { inputs: vec![0] },
            _ => QuantRole::Opaque,
        }
    }

    fn channels(&self, cx: &InferContext, axis: usize) -> ChannelRole {
        // Positions of maxima do not depend on positive factors either.
        match &*cx.node.op.op_type {
            "AveragePool" | "MaxPool" if axis == 1 => ChannelRole::same(axis),
            _ => ChannelRole::Barrier,
        }
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        if cx.opset < 2 && to >= 2 && &*cx.node.op.op_type == "LpPool" { integer_exponent(cx) } else { Upgrade::Same }
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let mut links = AxisLinks::default();
        links.same_rest(0, 0, 0..2);
        // Positions of maxima count the elements before them.
        (cx.outputs.len() < 2 || cx.outputs[1].is_none()).then_some(links)
    }
}

fn geometry(cx: &InferContext, x: &[usize], y: &[usize]) -> Result<PoolGeometry> {
    let kernel: Vec<usize> = ints(cx, "kernel_shape")?.unwrap_or_default().iter().map(|&k| k as usize).collect();
    let axes = placed(cx, &kernel, &x[2..], &y[2..])?;
    Ok(PoolGeometry {
        planes: x[0] * x[1],
        input: last_three(&x[2..], 1),
        output: last_three(&y[2..], 1),
        kernel: axes.map(|a| a.kernel),
        stride: axes.map(|a| a.stride),
        dilation: axes.map(|a| a.dilation),
        pad: axes.map(|a| a.before),
        pad_after: axes.map(|a| a.after),
        count_padding: int(cx, "count_include_pad", 0)? != 0,
    })
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let (x, dims) = (f.float(0)?, f.shape()?);
    let g = geometry(f.cx, x.dims(), &dims)?;
    if &*f.cx.node.op.op_type == "AveragePool" {
        return Ok(Computed::one(Array::new(&dims, average_forward(&g, x.data()))));
    }
    let (y, positions) = max_forward(&g, x.data());
    let mut computed = Computed::one(Array::new(&dims, y));
    computed.saved.positions = positions;
    Ok(computed)
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let (x, dy) = (b.float(0)?, b.grad()?);
    let g = geometry(b.cx, x.dims(), dy.dims())?;
    let dx = match &*b.cx.node.op.op_type {
        "AveragePool" => average_backward(&g, dy.data()),
        _ => max_backward(&g, &b.saved.positions, dy.data()),
    };
    Ok(b.first(Array::new(x.dims(), dx)))
}
