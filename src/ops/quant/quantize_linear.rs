//! QuantizeLinear, of the standard and of ONNX Runtime.

use super::dequantize_linear::{ScaleMap, scale_links};
use crate::error::{Error, Result};
use crate::ir::{DType, Dim};
use crate::math::{Array, elementwise, elementwise2};
use crate::ops::axes::{AxisLinks, LinkContext};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{int, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, contrib, op};

/// Float to integer: `saturate(round(x / scale) + zero_point)`.
pub struct QuantizeLinear;

impl OpSpec for QuantizeLinear {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("QuantizeLinear", &[10, 13, 19, 21, 23, 24, 25]).f16(19), contrib("QuantizeLinear")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let requested = match int(cx, "output_dtype", 0)? {
            0 => None,
            code => {
                let dtype = i32::try_from(code).ok().and_then(DType::from_onnx);
                Some(dtype.ok_or_else(|| Error::invalid("attribute \"output_dtype\" is no element type"))?)
            }
        };
        let elem = match requested {
            Some(elem) => Some(elem),
            None if cx.present(2) => cx.elem(2),
            None => Some(DType::U8),
        };
        output(elem, cx.shape(0).map(<[Dim]>::to_vec))
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        scale_links(cx)
    }

    /// The straight-through estimator: rounding has the slope 1, saturation the slope 0 (Bengio et al. 2013, "Estimating or
    /// Propagating Gradients Through Stochastic Neurons"). With the rule of DequantizeLinear behind it, the gradient of the
    /// scale is that of a learned step size (Esser et al. 2020, "Learned Step Size Quantization").
    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        let bounds = self.infer(cx).ok()?.first()?.ty.as_ref()?.elem().and_then(bounds);
        bounds?;
        rule!(forward, backward, statistics: &[], settings: &[1, 2])
    }
}

/// Smallest and largest code of an integer type.
pub fn bounds(elem: DType) -> Option<(i32, i32)> {
    Some(match elem {
        DType::U8 => (0, 255),
        DType::I8 => (-128, 127),
        DType::U16 => (0, 65_535),
        DType::I16 => (-32_768, 32_767),
        DType::U4 => (0, 15),
        DType::I4 => (-8, 7),
        _ => return None,
    })
}

/// What the codes are made of.
struct Steps<'a, T> {
    scale: &'a Array<T>,
    zero: Array<T>,
    map: ScaleMap,
    low: T,
    high: T,
}

impl<'a, T: Element> Steps<'a, T> {
    fn new(cx: &InferContext, x: &Array<T>, scale: &'a Array<T>, zero: Option<Array<T>>) -> Result<Self> {
        let inferred = QuantizeLinear.infer(cx)?;
        let elem = inferred.first().and_then(|i| i.ty.as_ref()?.elem());
        let (low, high) =
            elem.and_then(bounds).ok_or_else(|| Error::unsupported("codes of a type that is no integer"))?;
        let map = ScaleMap::of(cx.node, x.dims(), scale.dims())?;
        let zero = zero.unwrap_or_else(|| Array::zeros(&[1]));
        Ok(Self { scale, zero, map, low: T::of(low.into()), high: T::of(high.into()) })
    }

    /// Scale and zero point of element `k`.
    fn at(&self, k: usize) -> (T, T) {
        let s = self.map.at(k);
        (self.scale.data()[s], self.zero.data()[if self.zero.len() == 1 { 0 } else { s }])
    }

    /// Before saturation.
    fn free(x: T, (scale, zero): (T, T)) -> T {
        T::of((x / scale).wide().round_ties_even()) + zero
    }

    fn saturates(&self, free: T) -> bool {
        free < self.low || free > self.high
    }
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let x = f.float(0)?;
    let steps = Steps::new(f.cx, x, f.float(1)?, f.number(2).ok())?;
    let code = |x: T, at: (T, T)| Steps::free(x, at).max(steps.low).min(steps.high);
    let codes = match (steps.map, steps.at(0)) {
        (ScaleMap::One, at) => elementwise(x.data(), |x| code(x, at)),
        _ => x.data().iter().enumerate().map(|(k, &x)| code(x, steps.at(k))).collect(),
    };
    Ok(Computed::one(Array::new(x.dims(), codes)))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let (x, dy) = (b.float(0)?, b.grad()?);
    let steps = Steps::new(b.cx, x, b.float(1)?, b.number(2).ok())?;
    let through = |x: T, d: T, at: (T, T)| if steps.saturates(Steps::free(x, at)) { T::zero() } else { d / at.0 };
    let pairs = || x.data().iter().zip(dy.data()).enumerate();
    let mut all = vec![None; b.inputs.len()];
    if b.wants(0) {
        let dx = match (steps.map, steps.at(0)) {
            (ScaleMap::One, at) => elementwise2(x.data(), dy.data(), |x, d| through(x, d, at)),
            _ => pairs().map(|(k, (&x, &d))| through(x, d, steps.at(k))).collect(),
        };
        all[0] = Some(Array::new(x.dims(), dx));
    }
    if b.wants(1) {
        let mut ds = Array::zeros(steps.scale.dims());
        let sums = ds.data_mut();
        for (k, (&x, &d)) in pairs() {
            let at = steps.at(k);
            sums[steps.map.at(k)] -= through(x, d, at) * x / at.0;
        }
        all[1] = Some(ds);
    }
    Ok(all)
}
