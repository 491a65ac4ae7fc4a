//! SpaceToDepth.

use super::super::custom::{Fact, Kernel};
use super::common::{concrete, fact, int, pick, text};
use super::layout::required;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `SpaceToDepth` (specification: versions 1 to 28): blocks of pixels become channels. In mode `CRD` the channels of one input
/// channel lie side by side.
#[derive(Debug)]
pub(super) struct SpaceToDepth {
    block: usize,
    column_first: bool,
}

impl SpaceToDepth {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let block = usize::try_from(int(node, "blocksize", 0)?)?;
        ensure!((1..1 << 20).contains(&block), "blocksize {block}");
        match &*text(node, "mode", "DCR")? {
            "DCR" => Ok(Self { block, column_first: false }),
            "CRD" => Ok(Self { block, column_first: true }),
            other => bail!("mode \"{other}\""),
        }
    }

    fn shape(&self, x: &[usize]) -> TractResult<[usize; 4]> {
        let &[n, c, h, w] = x else { bail!("an image of shape {x:?}") };
        let b = self.block;
        ensure!(h % b == 0 && w % b == 0, "blocks of {b} in an image of shape {x:?}");
        Ok([n, c * b * b, h / b, w / b])
    }
}

impl Kernel for SpaceToDepth {
    fn name(&self) -> &'static str {
        "SpaceToDepth"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let x = required(inputs, 0)?;
        Ok(tvec![fact(x.dtype, &self.shape(&concrete(&x.shape)?)?)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        let shape = self.shape(x.shape())?;
        let (channels, b) = (x.shape()[1], self.block);
        let (height, width) = (x.shape()[2], x.shape()[3]);
        let place = |index: &[usize]| {
            let channel = index[1];
            let (c, inner) = match self.column_first {
                true => (channel / (b * b), channel % (b * b)),
                false => (channel % channels, channel / channels),
            };
            let (y, x) = (index[2] * b + inner / b, index[3] * b + inner % b);
            Some(((index[0] * channels + c) * height + y) * width + x)
        };
        Ok(tvec![pick(x, &shape, None, place)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_in_both_orders() {
        let x = Tensor::from_shape(&[1, 2, 2, 2], &[0u8, 1, 2, 3, 10, 11, 12, 13]).unwrap();
        let run = |column_first| SpaceToDepth { block: 2, column_first }.eval(&[Some(&x)]).unwrap()[0].clone();
        assert_eq!(run(true), Tensor::from_shape(&[1, 8, 1, 1], &[0u8, 1, 2, 3, 10, 11, 12, 13]).unwrap());
        assert_eq!(run(false), Tensor::from_shape(&[1, 8, 1, 1], &[0u8, 10, 1, 11, 2, 12, 3, 13]).unwrap());
        let odd = Tensor::zero::<f32>(&[1, 1, 3, 2]).unwrap();
        assert!(SpaceToDepth { block: 2, column_first: true }.eval(&[Some(&odd)]).is_err());
    }
}
