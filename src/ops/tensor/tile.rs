//! Tile.

use crate::error::{Error, Result};
use crate::math::{Array, View, row_strides};
use crate::ops::axes::{AxisLinks, AxisMap, LinkContext, input, output as out};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{is_f32, mul_dims, output, requested_shape};
use crate::ops::spec::{InferContext, Inferred, OpSpec, QuantRole, Schema, Upgrade, op};

/// Repeats a tensor along each axis.
pub struct Tile;

impl OpSpec for Tile {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Tile", &[1, 6, 13])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let Some(shape) = cx.shape(0).filter(|_| cx.opset >= 6) else { return output(cx.elem(0), None) };
        let Some(repeats) = requested_shape(cx, 1)? else { return output(cx.elem(0), None) };
        if repeats.len() != shape.len() {
            let (n, rank) = (repeats.len(), shape.len());
            return Err(Error::invalid(format!("it has {n} repeats for an input of rank {rank}")));
        }
        output(cx.elem(0), Some(shape.iter().zip(&repeats).map(|(a, b)| mul_dims(a, b)).collect()))
    }

    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        if cx.opset < 6 { None } else { rule!(forward, backward) }
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if is_f32(cx, 0) { QuantRole::PassThrough { input: 0 } } else { QuantRole::Opaque }
    }

    fn upgrade(&self, cx: &InferContext, _to: i64) -> Upgrade {
        if cx.opset < 6 {
            return Upgrade::Impossible("its form before operator set 6 is not supported".into());
        }
        Upgrade::Same
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let repeats = cx.cx.ints(1).filter(|_| cx.cx.opset >= 6)?;
        let mut links = AxisLinks::default();
        for (k, n) in repeats.into_iter().enumerate() {
            if n == 1 {
                links.same(input(0, k), out(0, k));
            } else {
                links.link(out(0, k), input(0, k), AxisMap::Stride { inner: 1 });
            }
        }
        Some(links)
    }
}

/// The input seen once per repetition: axes `[repeats, size]` for each axis.
fn view<T: Element>(x: &Array<T>, dims: &[usize]) -> View {
    let repeats = x.dims().iter().zip(dims).map(|(&d, &out)| out.checked_div(d).unwrap_or(0));
    let pairs = repeats.zip(x.dims()).flat_map(|(r, &d)| [r, d]).collect();
    View { dims: pairs, strides: row_strides(x.dims()).into_iter().flat_map(|s| [0, s]).collect(), offset: 0 }
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let (x, dims) = (f.float(0)?, f.shape()?);
    Ok(Computed::one(Array::new(&dims, view(x, &dims).read(x.data()))))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let (x, dy) = (b.float(0)?, b.grad()?);
    let mut dx = Array::zeros(x.dims());
    view(x, dy.dims()).add_to(dx.data_mut(), dy.data());
    Ok(b.first(dx))
}
