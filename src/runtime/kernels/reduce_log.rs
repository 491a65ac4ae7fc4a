//! ReduceLogSum and ReduceLogSumExp.

use super::super::custom::{Fact, Kernel};
use super::common::{f64s, narrowed};
use super::layout::required;
use super::reduce::Axes;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `ReduceLogSum` or `ReduceLogSumExp` (specification: all versions) of floating-point numbers, in f64: tract overflows.
#[derive(Debug)]
pub(super) struct ReduceLog {
    axes: Axes,
    exp: bool,
}

impl ReduceLog {
    pub(super) fn parse(node: &NodeProto, exp: bool) -> TractResult<Self> {
        Ok(Self { axes: Axes::parse(node)?, exp })
    }
}

impl Kernel for ReduceLog {
    fn name(&self) -> &'static str {
        if self.exp { "ReduceLogSumExp" } else { "ReduceLogSum" }
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        ensure!(required(inputs, 0)?.dtype.is_float(), "{} of integers", self.name());
        Ok(tvec![self.axes.fact(inputs)?])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        let axes = self.axes.reduced(x.rank(), inputs.get(1).copied().flatten())?;
        // Whether the logarithm is taken even where nothing is reduced is not agreed on.
        ensure!(!(axes.is_empty() && self.axes.noop), "{} that reduces nothing", self.name());
        let shape: Vec<usize> = (0..x.rank()).map(|k| if axes.contains(&k) { 1 } else { x.shape()[k] }).collect();
        let steps = super::common::strides(&shape);
        let mut lines: Vec<Vec<f64>> = vec![vec![]; shape.iter().product()];
        let values = f64s(x)?;
        super::common::for_each_index(x.shape(), |flat, index| {
            let to: usize = (0..index.len()).map(|k| if shape[k] == 1 { 0 } else { index[k] * steps[k] }).sum();
            lines[to].push(values[flat]);
            Ok(())
        })?;
        let y: Vec<f64> =
            lines.iter().map(|line| if self.exp { log_sum_exp(line) } else { line.iter().sum::<f64>().ln() }).collect();
        let kept: Vec<usize> =
            (0..x.rank()).filter(|k| self.axes.keep || !axes.contains(k)).map(|k| shape[k]).collect();
        Ok(tvec![narrowed(x.datum_type(), &kept, &y)?])
    }
}

fn log_sum_exp(line: &[f64]) -> f64 {
    let max = line.iter().copied().fold(f64::NEG_INFINITY, |a, b| if b > a || b.is_nan() { b } else { a });
    if max.is_infinite() {
        return max;
    }
    max + line.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_do_not_overflow() {
        let op = ReduceLog { axes: Axes { axes: vec![-1], keep: true, noop: false }, exp: true };
        let y = op.eval(&[Some(&tensor2(&[[1000f32, 1000.0], [f32::NEG_INFINITY, 0.0]]))]).unwrap();
        assert_eq!(y[0], tensor2(&[[1000.0 + std::f32::consts::LN_2], [0.0]]));
        let y = op.eval(&[Some(&Tensor::zero::<f32>(&[1, 0]).unwrap())]).unwrap();
        assert_eq!(y[0], tensor2(&[[f32::NEG_INFINITY]]));
        assert!(op.eval(&[Some(&tensor1(&[1i32]))]).is_err());
    }
}
