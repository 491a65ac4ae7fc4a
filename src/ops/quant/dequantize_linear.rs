//! DequantizeLinear, of the standard and of ONNX Runtime.

use crate::error::{Error, Result};
use crate::ir::{DType, Dim};
use crate::math::{Array, elementwise};
use crate::ops::axes::{AxisLinks, LinkContext, elementwise_links, input};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{axis, int, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, contrib, op};

/// Integer to float: `(x - zero_point) * scale`.
pub struct DequantizeLinear;

impl OpSpec for DequantizeLinear {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("DequantizeLinear", &[10, 13, 19, 21, 23, 24, 25]).f16(19), contrib("DequantizeLinear")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let elem = match int(cx, "output_dtype", 0)? {
            0 => cx.elem(1),
            code => {
                let dtype = i32::try_from(code).ok().and_then(DType::from_onnx);
                Some(dtype.ok_or_else(|| Error::invalid("attribute \"output_dtype\" is no element type"))?)
            }
        };
        output(elem, cx.shape(0).map(<[Dim]>::to_vec))
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        scale_links(cx)
    }

    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        // Codes that are trained are floats in training.
        let trains = cx.elem(0).is_some_and(|e| !e.is_float() || matches!(e, DType::F32 | DType::F64));
        if trains { rule!(forward, backward, statistics: &[], settings: &[1, 2]) } else { None }
    }
}

/// Which of the scales each element of a tensor has: one for all, one per index of an axis, or one per block along it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScaleMap {
    /// The first.
    One,
    /// That of the index along the axis.
    Axis {
        /// Length of the axis.
        length: usize,
        /// Elements behind it.
        inner: usize,
    },
    /// That of the block along the axis.
    Blocks {
        /// Length of the axis.
        length: usize,
        /// Elements behind it.
        inner: usize,
        /// Length of a block.
        block: usize,
    },
}

impl ScaleMap {
    /// That of QuantizeLinear or DequantizeLinear with a tensor of shape `dims` and scales of shape `scales`.
    ///
    /// # Errors
    /// Scales that do not fit.
    pub fn of(node: &crate::ir::Node, dims: &[usize], scales: &[usize]) -> Result<Self> {
        if scales.iter().product::<usize>() == 1 {
            return Ok(Self::One);
        }
        let at = axis(node.int("axis").unwrap_or(1), dims.len())?;
        let block = usize::try_from(node.int("block_size").unwrap_or(0)).unwrap_or(0);
        let (length, inner) = (dims[at], dims[at + 1..].iter().product());
        let outer: usize = dims[..at].iter().product();
        let count = scales.iter().product::<usize>();
        let map = if block == 0 { Self::Axis { length, inner } } else { Self::Blocks { length, inner, block } };
        let wanted = if block == 0 { length } else { outer * length.div_ceil(block) * inner };
        match count == wanted {
            true => Ok(map),
            false => Err(Error::invalid(format!("scales of shape {scales:?} for a tensor of shape {dims:?}"))),
        }
    }

    /// The scale of element `k`.
    pub fn at(self, k: usize) -> usize {
        match self {
            Self::One => 0,
            Self::Axis { length, inner } => k / inner % length,
            Self::Blocks { length, inner, block } => {
                let (outer, j, i) = (k / inner / length, k / inner % length, k % inner);
                (outer * length.div_ceil(block) + j / block) * inner + i
            }
        }
    }
}

/// Codes less their zero points.
fn centred<T: Element>(codes: &Array<T>, zero: Option<Array<T>>, map: ScaleMap) -> Array<T> {
    let Some(zero) = zero.filter(|z| z.data().iter().any(|&z| z != T::zero())) else { return codes.clone() };
    match (map, zero.data()) {
        (_, &[zero]) => codes.map(|q| q - zero),
        (_, zero) => Array::new(codes.dims(), each(codes.data(), |k, q| q - zero[map.at(k)])),
    }
}

fn each<T: Copy>(x: &[T], f: impl Fn(usize, T) -> T) -> Vec<T> {
    x.iter().enumerate().map(|(k, &x)| f(k, x)).collect()
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let (codes, scale) = (f.number(0)?, f.float(1)?);
    let map = ScaleMap::of(f.cx.node, codes.dims(), scale.dims())?;
    let codes = centred(&codes, f.number(2).ok(), map);
    let y = match scale.data() {
        &[s] => elementwise(codes.data(), |q| q * s),
        s => each(codes.data(), |k, q| q * s[map.at(k)]),
    };
    Ok(Computed::one(Array::new(codes.dims(), y)))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let (codes, scale, dy) = (b.number(0)?, b.float(1)?, b.grad()?);
    let map = ScaleMap::of(b.cx.node, codes.dims(), scale.dims())?;
    let mut all = vec![None; b.inputs.len()];
    if b.wants(0) {
        let dx = match scale.data() {
            &[s] => elementwise(dy.data(), |d| d * s),
            s => each(dy.data(), |k, d| d * s[map.at(k)]),
        };
        all[0] = Some(Array::new(codes.dims(), dx));
    }
    if b.wants(1) {
        let codes = centred(&codes, b.number(2).ok(), map);
        let mut ds = Array::zeros(scale.dims());
        let sums = ds.data_mut();
        codes.data().iter().zip(dy.data()).enumerate().for_each(|(k, (&q, &d))| sums[map.at(k)] += q * d);
        all[1] = Some(ds);
    }
    Ok(all)
}

/// One scale (and zero point) for all, or one per element of an axis. Blocked ones are tied in blocks: opaque.
pub fn scale_links(cx: &LinkContext) -> Option<AxisLinks> {
    let mut links = elementwise_links(cx, 0)?;
    let rank = cx.rank(0)?;
    for slot in (1..3).filter(|&slot| cx.cx.present(slot)) {
        match cx.cx.shape(slot)? {
            [] => {}
            [Dim::Known(1)] => links.free(input(slot, 0)),
            [_] => {
                let at = axis(int(cx.cx, "axis", 1).ok()?, rank).ok()?;
                links.same(input(slot, 0), input(0, at));
            }
            _ => return None,
        }
    }
    Some(links)
}
