//! Col2Im.

use super::super::custom::{Fact, Kernel};
use super::common::{concrete, constant, f64s, fact, for_each_index, i64s, ints, narrowed, strides, volume};
use super::layout::required;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `Col2Im` (specification: version 18): adds the columns of blocks up to the image that they came from. Sums in f64.
#[derive(Debug)]
pub(super) struct Col2Im {
    dilations: Option<Vec<i64>>,
    pads: Option<Vec<i64>>,
    strides: Option<Vec<i64>>,
}

/// One spatial axis.
struct Axis {
    image: usize,
    block: usize,
    dilation: usize,
    pad: usize,
    stride: usize,
    /// How many blocks there are.
    blocks: usize,
}

impl Col2Im {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        Ok(Self { dilations: ints(node, "dilations")?, pads: ints(node, "pads")?, strides: ints(node, "strides")? })
    }

    fn axes(&self, image: &Tensor, block: &Tensor) -> TractResult<Vec<Axis>> {
        let (image, block) = (i64s(image)?, i64s(block)?);
        let rank = image.len();
        let sizes = |given: &Option<Vec<i64>>, default: i64, len: usize| -> TractResult<Vec<usize>> {
            let values = given.clone().unwrap_or_else(|| vec![default; len]);
            ensure!(values.len() == len, "{} values for {rank} axes", values.len());
            values.into_iter().map(|v| Ok(usize::try_from(v)?)).collect()
        };
        let (block, image) = (sizes(&Some(block), 1, rank)?, sizes(&Some(image), 1, rank)?);
        let (dilations, steps) = (sizes(&self.dilations, 1, rank)?, sizes(&self.strides, 1, rank)?);
        let pads = sizes(&self.pads, 0, 2 * rank)?;
        volume(&image)?;
        volume(&block)?;
        volume(&pads.iter().map(|p| p.saturating_add(1)).collect::<Vec<_>>())?;
        let axis = |k: usize| {
            ensure!(block[k] > 0 && dilations[k] > 0 && steps[k] > 0, "a block of {block:?}");
            let reach = (block[k] - 1).checked_mul(dilations[k]).context("the reach of a block")?;
            let room = (image[k] + pads[k] + pads[rank + k]).checked_sub(reach.saturating_add(1));
            let room = room.context("a block is larger than the image")?;
            let blocks = room / steps[k] + 1;
            Ok(Axis {
                image: image[k],
                block: block[k],
                dilation: dilations[k],
                pad: pads[k],
                stride: steps[k],
                blocks,
            })
        };
        (0..rank).map(axis).collect()
    }

    fn shape(x: &[usize], axes: &[Axis]) -> TractResult<TVec<usize>> {
        let &[batch, columns, blocks] = x else { bail!("columns of shape {x:?}") };
        let size: usize = axes.iter().map(|a| a.block).product();
        ensure!(columns % size == 0, "{columns} columns of blocks of {size}");
        ensure!(blocks == axes.iter().map(|a| a.blocks).product::<usize>(), "{blocks} blocks");
        let mut shape: TVec<usize> = tvec![batch, columns / size];
        shape.extend(axes.iter().map(|a| a.image));
        volume(&shape)?;
        Ok(shape)
    }
}

impl Kernel for Col2Im {
    fn name(&self) -> &'static str {
        "Col2Im"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let x = required(inputs, 0)?;
        let axes = self.axes(&*constant(inputs, 1, "the image shape")?, &*constant(inputs, 2, "the block shape")?)?;
        Ok(tvec![fact(x.dtype, &Self::shape(&concrete(&x.shape)?, &axes)?)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        let axes = self.axes(required(inputs, 1)?, required(inputs, 2)?)?;
        let shape = Self::shape(x.shape(), &axes)?;
        let from = f64s(x)?;
        let mut y = vec![0f64; shape.iter().product()];
        let steps = strides(&shape[2..]);
        // Sample, channel, place in the block, block.
        let mut walk: TVec<usize> = tvec![shape[0], shape[1]];
        walk.extend(axes.iter().map(|a| a.block));
        walk.extend(axes.iter().map(|a| a.blocks));
        let rank = axes.len();
        let pixels: usize = shape[2..].iter().product();
        for_each_index(&walk, |flat, index| {
            let mut to = (index[0] * shape[1] + index[1]) * pixels;
            for (k, a) in axes.iter().enumerate() {
                let at = index[2 + rank + k] * a.stride + index[2 + k] * a.dilation;
                match at.checked_sub(a.pad) {
                    Some(at) if at < a.image => to += at * steps[k],
                    _ => return Ok(()),
                }
            }
            y[to] += from[flat];
            Ok(())
        })?;
        Ok(tvec![narrowed(x.datum_type(), &shape, &y)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_add_up_and_padding_falls_off() {
        let run = |pads: Option<Vec<i64>>, x: &Tensor| {
            let op = Col2Im { dilations: None, pads, strides: None };
            op.eval(&[Some(x), Some(&tensor1(&[3i64])), Some(&tensor1(&[2i64]))]).map(|y| y[0].clone())
        };
        let x = Tensor::from_shape(&[1, 2, 2], &[1f32, 2.0, 10.0, 20.0]).unwrap();
        assert_eq!(run(None, &x).unwrap(), Tensor::from_shape(&[1, 1, 3], &[1f32, 12.0, 20.0]).unwrap());
        assert!(run(Some(vec![1, 0]), &x).is_err() && run(Some(vec![-1, 0]), &x).is_err());
        let x = Tensor::from_shape(&[1, 2, 3], &[1f32, 2.0, 3.0, 10.0, 20.0, 30.0]).unwrap();
        assert_eq!(run(Some(vec![1, 0]), &x).unwrap(), Tensor::from_shape(&[1, 1, 3], &[12f32, 23.0, 30.0]).unwrap());
    }
}
