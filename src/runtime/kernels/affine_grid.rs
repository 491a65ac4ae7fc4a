//! AffineGrid.

use super::super::custom::{Fact, Kernel};
use super::common::{concrete, constant, f64s, fact, flag, for_each_index, i64s, narrowed, volume};
use super::layout::required;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `AffineGrid` (specification: version 20): where each pixel of an image comes from under an affine map. In f64.
#[derive(Debug)]
pub(super) struct AffineGrid {
    align_corners: bool,
}

impl AffineGrid {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        Ok(Self { align_corners: flag(node, "align_corners")? })
    }

    /// Samples, depth if there are three axes, height, width, coordinates.
    fn shape(&self, theta: &[usize], size: &Tensor) -> TractResult<TVec<usize>> {
        let size: Vec<usize> = i64s(size)?.into_iter().map(usize::try_from).collect::<Result<_, _>>()?;
        let axes = size.len().saturating_sub(2);
        ensure!(matches!(axes, 2 | 3), "an image of shape {size:?}");
        ensure!(*theta == [size[0], axes, axes + 1], "a map of shape {theta:?} for an image of shape {size:?}");
        // The step between the corners of an axis of one pixel is not defined.
        ensure!(!self.align_corners || size[2..].iter().all(|&n| n > 1), "align_corners in an image of shape {size:?}");
        let mut shape: TVec<usize> = tvec![size[0]];
        shape.extend_from_slice(&size[2..]);
        shape.push(axes);
        volume(&shape)?;
        Ok(shape)
    }
}

impl Kernel for AffineGrid {
    fn name(&self) -> &'static str {
        "AffineGrid"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let theta = required(inputs, 0)?;
        let shape = self.shape(&concrete(&theta.shape)?, &*constant(inputs, 1, "the size")?)?;
        Ok(tvec![fact(theta.dtype, &shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let theta = required(inputs, 0)?;
        let shape = self.shape(theta.shape(), required(inputs, 1)?)?;
        let map = f64s(theta)?;
        let axes = shape.len() - 2;
        let mut y = vec![];
        for_each_index(&shape, |_, index| {
            let (sample, row) = (index[0], index[axes + 1]);
            let line = &map[(sample * axes + row) * (axes + 1)..][..axes + 1];
            let mut sum = line[axes];
            for k in 0..axes {
                // The coordinates are x, y, z: the last axis of the image first.
                let (at, size) = (index[axes - k] as f64, shape[axes - k] as f64);
                let place =
                    if self.align_corners { 2.0 * at / (size - 1.0) - 1.0 } else { (2.0 * at + 1.0) / size - 1.0 };
                sum += line[k] * place;
            }
            y.push(sum);
            Ok(())
        })?;
        Ok(tvec![narrowed(theta.datum_type(), &shape, &y)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_gives_the_pixels_themselves() {
        let theta = Tensor::from_shape(&[1, 2, 3], &[1f32, 0.0, 0.0, 0.0, 1.0, 0.0]).unwrap();
        let run = |align_corners, size: &[i64]| {
            AffineGrid { align_corners }.eval(&[Some(&theta), Some(&tensor1(size))]).map(|y| y[0].clone())
        };
        let corners = Tensor::from_shape(&[1, 2, 2, 2], &[-1f32, -1.0, 1.0, -1.0, -1.0, 1.0, 1.0, 1.0]).unwrap();
        assert_eq!(run(true, &[1, 1, 2, 2]).unwrap(), corners);
        assert_eq!(
            run(false, &[1, 1, 1, 2]).unwrap(),
            Tensor::from_shape(&[1, 1, 2, 2], &[-0.5f32, 0.0, 0.5, 0.0]).unwrap()
        );
        assert!(run(true, &[1, 1, 1, 2]).is_err() && run(false, &[1, 1, -1, 2]).is_err());
        assert!(run(false, &[1, 1, i64::MAX, 2]).is_err());
    }
}
