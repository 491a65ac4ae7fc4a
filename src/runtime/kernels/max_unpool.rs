//! MaxUnpool.

use super::super::custom::{Fact, Kernel};
use super::common::{concrete, fact, i64s, ints, volume};
use super::layout::{optional, required};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `MaxUnpool` (specification: versions 9 to 22) without `output_shape`: puts maxima back where they came from.
#[derive(Debug)]
pub(super) struct MaxUnpool {
    kernel: Vec<i64>,
    pads: Vec<i64>,
    strides: Vec<i64>,
}

impl MaxUnpool {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let kernel = ints(node, "kernel_shape")?.context("kernel_shape is missing")?;
        let pads = ints(node, "pads")?.unwrap_or_else(|| vec![0; 2 * kernel.len()]);
        let strides = ints(node, "strides")?.unwrap_or_else(|| vec![1; kernel.len()]);
        ensure!(pads.len() == 2 * kernel.len() && strides.len() == kernel.len(), "pads {pads:?}, strides {strides:?}");
        Ok(Self { kernel, pads, strides })
    }

    fn shape(&self, x: &[usize]) -> TractResult<TVec<usize>> {
        let axes = self.kernel.len();
        ensure!(x.len() == axes + 2, "a kernel of {axes} axes over shape {x:?}");
        let mut shape: TVec<usize> = x[..2].into();
        for k in 0..axes {
            let whole = (x[k + 2] as i128 - 1) * self.strides[k] as i128 + self.kernel[k] as i128;
            let size = whole - self.pads[k] as i128 - self.pads[axes + k] as i128;
            shape.push(usize::try_from(size).with_context(|| format!("a size of {size}"))?);
        }
        volume(&shape)?;
        Ok(shape)
    }
}

impl Kernel for MaxUnpool {
    fn name(&self) -> &'static str {
        "MaxUnpool"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let x = required(inputs, 0)?;
        // What the indices count in a shape that is given is not agreed on.
        ensure!(optional(inputs, 2).is_none(), "MaxUnpool with output_shape");
        Ok(tvec![fact(x.dtype, &self.shape(&concrete(&x.shape)?)?)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        let places = i64s(required(inputs, 1)?)?;
        ensure!(places.len() == x.len() && x.datum_type().is_copy(), "{} places for {:?}", places.len(), x.shape());
        let mut y = Tensor::zero_dt(x.datum_type(), &self.shape(x.shape())?)?;
        let (count, size) = (y.len(), x.datum_type().size_of());
        let (from, to) = (x.as_bytes(), y.as_bytes_mut());
        for (k, place) in places.into_iter().enumerate() {
            let place = usize::try_from(place).ok().filter(|&p| p < count);
            let place = place.with_context(|| format!("a place outside of {count} elements"))?;
            to[place * size..][..size].copy_from_slice(&from[k * size..][..size]);
        }
        Ok(tvec![y])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_checked() {
        let op = MaxUnpool { kernel: vec![2], pads: vec![0, 0], strides: vec![2] };
        let x = Tensor::from_shape(&[1, 1, 2], &[5f32, 6.0]).unwrap();
        let run = |places: &[i64]| {
            op.eval(&[Some(&x), Some(&Tensor::from_shape(&[1, 1, 2], places).unwrap())]).map(|y| y[0].clone())
        };
        assert_eq!(run(&[1, 2]).unwrap(), Tensor::from_shape(&[1, 1, 4], &[0f32, 5.0, 6.0, 0.0]).unwrap());
        assert!(run(&[1, 4]).is_err() && run(&[-1, 2]).is_err());
        let hostile = MaxUnpool { kernel: vec![i64::MAX], pads: vec![i64::MIN, 0], strides: vec![i64::MAX] };
        assert!(hostile.eval(&[Some(&x), Some(&x)]).is_err());
    }
}
