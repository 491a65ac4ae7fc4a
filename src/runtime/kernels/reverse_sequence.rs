//! ReverseSequence.

use super::super::custom::{Fact, Kernel};
use super::common::{i64s, int, pick, strides};
use super::layout::required;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `ReverseSequence` (specification: version 10): turns the first elements of each sequence around, as many as its length.
#[derive(Debug)]
pub(super) struct ReverseSequence {
    batch: usize,
    time: usize,
}

impl ReverseSequence {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let (batch, time) = (int(node, "batch_axis", 1)?, int(node, "time_axis", 0)?);
        ensure!(matches!((batch, time), (0, 1) | (1, 0)), "batch axis {batch} and time axis {time}");
        Ok(Self { batch: batch as usize, time: time as usize })
    }
}

impl Kernel for ReverseSequence {
    fn name(&self) -> &'static str {
        "ReverseSequence"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        Ok(tvec![required(inputs, 0)?])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        ensure!(x.rank() >= 2, "sequences of rank {}", x.rank());
        let (batch, time) = (x.shape()[self.batch], x.shape()[self.time]);
        let lengths = i64s(required(inputs, 1)?)?;
        ensure!(lengths.len() == batch, "{} lengths for {batch} sequences", lengths.len());
        let lengths: Vec<usize> = lengths.into_iter().map(usize::try_from).collect::<Result<_, _>>()?;
        ensure!(lengths.iter().all(|&n| n <= time), "lengths {lengths:?} of {time} steps");
        let steps = strides(x.shape());
        let place = |index: &[usize]| {
            let (n, t) = (lengths[index[self.batch]], index[self.time]);
            let turned = if t < n { n - 1 - t } else { t };
            let flat: usize = index.iter().zip(&steps).map(|(i, s)| i * s).sum();
            Some(flat - t * steps[self.time] + turned * steps[self.time])
        };
        Ok(tvec![pick(x, x.shape(), None, place)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_elements_turn() {
        let run = |lengths: &[i64]| {
            let x = tensor2(&[[1i32, 2, 3], [4, 5, 6]]);
            ReverseSequence { batch: 0, time: 1 }.eval(&[Some(&x), Some(&tensor1(lengths))]).map(|y| y[0].clone())
        };
        assert_eq!(run(&[2, 0]).unwrap(), tensor2(&[[2i32, 1, 3], [4, 5, 6]]));
        assert!(run(&[4, 1]).is_err() && run(&[-1, 1]).is_err() && run(&[1]).is_err());
    }
}
