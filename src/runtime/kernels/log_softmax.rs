//! LogSoftmax.

use super::super::custom::{Fact, Kernel};
use super::common::{axis_of, f64s, int, narrowed};
use super::layout::required;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// First operator set whose LogSoftmax is along one axis, not over all axes from one on.
const ONE_AXIS: i64 = 13;

/// `LogSoftmax` (specification: all versions), in f64. tract takes the logarithm of the softmax before version 13, which is
/// minus infinity where the softmax underflows.
#[derive(Debug)]
pub(super) struct LogSoftmax {
    axis: i64,
    /// Over all axes from this one on.
    flattened: bool,
}

impl LogSoftmax {
    pub(super) fn parse(node: &NodeProto, opset: i64) -> TractResult<Self> {
        let flattened = opset < ONE_AXIS;
        Ok(Self { axis: int(node, "axis", if flattened { 1 } else { -1 })?, flattened })
    }
}

/// In place, over the middle of three axes.
pub(super) fn log_softmax(x: &mut [f64], [outer, count, inner]: [usize; 3]) {
    for o in 0..outer {
        for i in 0..inner {
            let at = |k: usize| (o * count + k) * inner + i;
            let max = (0..count).map(|k| x[at(k)]).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = (0..count).map(|k| (x[at(k)] - max).exp()).sum();
            (0..count).for_each(|k| x[at(k)] -= max + sum.ln());
        }
    }
}

impl Kernel for LogSoftmax {
    fn name(&self) -> &'static str {
        "LogSoftmax"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        Ok(tvec![required(inputs, 0)?])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        let shape = x.shape();
        // The flattened form may start behind the last axis.
        let last = self.flattened && self.axis == shape.len() as i64;
        let axis = if last { shape.len() } else { axis_of(self.axis, shape.len().max(1))? };
        let of = |axes: &[usize]| axes.iter().product::<usize>();
        let sizes = match self.flattened {
            true => [of(&shape[..axis]), of(&shape[axis..]), 1],
            false if shape.is_empty() => [1, 1, 1],
            false => [of(&shape[..axis]), shape[axis], of(&shape[axis + 1..])],
        };
        let mut y = f64s(x)?;
        log_softmax(&mut y, sizes);
        Ok(tvec![narrowed(x.datum_type(), shape, &y)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_probabilities_keep_their_logarithm() {
        let x = tensor2(&[[0f32, -300.0], [5.0, 5.0]]);
        let run = |axis, flattened| LogSoftmax { axis, flattened }.eval(&[Some(&x)]).unwrap()[0].clone();
        let half = -std::f32::consts::LN_2;
        assert_eq!(run(1, true), tensor2(&[[0f32, -300.0], [half, half]]));
        assert_eq!(run(0, false).shape(), &[2, 2]);
        run(0, true).close_enough(&tensor2(&[[-5.696_505f32, -305.6965], [-0.696_505, -0.696_505]]), true).unwrap();
        assert_eq!(
            LogSoftmax { axis: 1, flattened: true }.eval(&[Some(&Tensor::zero::<f32>(&[2, 0]).unwrap())]).unwrap()[0]
                .len(),
            0
        );
    }
}
