//! Conv.

use crate::error::Result;
use crate::ir::Type;
use crate::math::{Array, ConvGeometry, conv_backward, conv_forward};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{count, int, is_f32, output};
use crate::ops::spec::{ComputeRole, InferContext, Inferred, OpSpec, QuantRole, Schema, op};
use crate::ops::window::{conv_shape, last_three, placed};

/// Convolution.
pub struct Conv;

impl OpSpec for Conv {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Conv", &[1, 11, 22])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(cx.elem(0), conv_shape(cx, 0, 1)?)
    }

    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        let rank = cx.shape(0).map_or(0, <[_]>::len);
        if rank > 5 { None } else { rule!(forward, backward) }
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if !is_f32(cx, 0) {
            return QuantRole::Opaque;
        }
        QuantRole::Compute(ComputeRole { activation: 0, weight: 1, bias: Some(2), weight_axis: 0 })
    }

    fn macs(&self, cx: &InferContext, outputs: &[Option<&Type>]) -> Option<u64> {
        conv_macs(cx, 1, outputs)
    }
}

/// Output elements times the weight's elements per output channel: `Cin / group * prod(kernel)`.
pub fn conv_macs(cx: &InferContext, w: usize, outputs: &[Option<&Type>]) -> Option<u64> {
    let out = outputs.first().copied().flatten()?.shape()?;
    let per_element = count(cx.shape(w)?.get(1..)?);
    Some(count(out).saturating_mul(per_element))
}

/// The sizes of a convolution of `x` with `w` that gives `y`.
pub fn geometry(cx: &InferContext, x: &[usize], w: &[usize], y: &[usize]) -> Result<ConvGeometry> {
    let axes = placed(cx, &w[2..], &x[2..], &y[2..])?;
    let groups = int(cx, "group", 1)?.max(1) as usize;
    Ok(ConvGeometry {
        batch: x[0],
        groups,
        inputs: w[1],
        outputs: w[0] / groups,
        input: last_three(&x[2..], 1),
        output: last_three(&y[2..], 1),
        kernel: axes.map(|a| a.kernel),
        stride: axes.map(|a| a.stride),
        dilation: axes.map(|a| a.dilation),
        pad: axes.map(|a| a.before),
    })
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let (x, w, dims) = (f.float(0)?, f.float(1)?, f.shape()?);
    let g = geometry(f.cx, x.dims(), w.dims(), &dims)?;
    let y = conv_forward(&g, x.data(), w.data(), f.optional(2).map(Array::data));
    Ok(Computed::one(Array::new(&dims, y)))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let (x, w, dy) = (b.float(0)?, b.float(1)?, b.grad()?);
    let g = geometry(b.cx, x.dims(), w.dims(), dy.dims())?;
    let wants = [0, 1, 2].map(|k| b.wants(k));
    let [dx, dw, db] = conv_backward(&g, x.data(), w.data(), dy.data(), wants);
    let channels = [w.dims()[0]];
    let shaped = [(x.dims(), dx), (w.dims(), dw), (&channels[..], db)].into_iter().zip(wants);
    let mut grads: Gradients<T> = shaped.map(|((dims, d), want)| want.then(|| Array::new(dims, d))).collect();
    grads.truncate(b.inputs.len());
    Ok(grads)
}
