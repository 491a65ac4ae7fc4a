//! CenterCropPad.

use super::super::custom::{Fact, Kernel};
use super::common::{axis_of, concrete, constant, fact, i64s, ints, pick, strides, volume};
use super::layout::required;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `CenterCropPad` (specification: version 18): cuts or pads with zeros on both sides, the odd element at the end.
#[derive(Debug)]
pub(super) struct CenterCropPad {
    axes: Option<Vec<i64>>,
}

impl CenterCropPad {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        Ok(Self { axes: ints(node, "axes")? })
    }

    fn shape(&self, x: &[usize], sizes: &Tensor) -> TractResult<TVec<usize>> {
        let axes = self.axes.clone().unwrap_or_else(|| (0..x.len() as i64).collect());
        let sizes = i64s(sizes)?;
        ensure!(axes.len() == sizes.len(), "{} sizes for {} axes", sizes.len(), axes.len());
        let mut shape: TVec<usize> = x.into();
        for (axis, size) in axes.into_iter().zip(sizes) {
            shape[axis_of(axis, x.len())?] = usize::try_from(size)?;
        }
        volume(&shape)?;
        Ok(shape)
    }
}

impl Kernel for CenterCropPad {
    fn name(&self) -> &'static str {
        "CenterCropPad"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let x = required(inputs, 0)?;
        Ok(tvec![fact(x.dtype, &self.shape(&concrete(&x.shape)?, &*constant(inputs, 1, "the shape")?)?)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        let shape = self.shape(x.shape(), required(inputs, 1)?)?;
        let (from, steps) = (x.shape(), strides(x.shape()));
        let place = |index: &[usize]| {
            let mut flat = 0;
            for (k, &i) in index.iter().enumerate() {
                let (have, want) = (from[k], shape[k]);
                let at = if want < have { i + (have - want) / 2 } else { i.checked_sub((want - have) / 2)? };
                flat += steps[k] * Some(at).filter(|&at| at < have)?;
            }
            Some(flat)
        };
        Ok(tvec![pick(x, &shape, None, place)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_odd_element_is_at_the_end() {
        let run = |x: &Tensor, size: i64| {
            CenterCropPad { axes: Some(vec![-1]) }.eval(&[Some(x), Some(&tensor1(&[size]))]).map(|y| y[0].clone())
        };
        let x = tensor1(&[1u8, 2, 3, 4]);
        assert_eq!(run(&x, 1).unwrap(), tensor1(&[2u8]));
        assert_eq!(run(&x, 7).unwrap(), tensor1(&[0u8, 1, 2, 3, 4, 0, 0]));
        assert_eq!(run(&x, 0).unwrap().shape(), &[0]);
        assert_eq!(run(&Tensor::zero::<f32>(&[0]).unwrap(), 2).unwrap(), tensor1(&[0f32, 0.0]));
        assert!(run(&x, -1).is_err() && run(&x, i64::MAX).is_err());
    }
}
