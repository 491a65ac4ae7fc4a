//! BatchNormalization in training mode.

use super::super::custom::{Fact, Kernel};
use super::common::{f64s, narrowed};
use super::layout::required;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `BatchNormalization` with `training_mode=1` (specification: versions 14 and 15): statistics of the batch itself, and running
/// ones that move towards them. In f64.
#[derive(Debug)]
pub(super) struct BatchNorm {
    epsilon: f64,
    momentum: f64,
}

impl BatchNorm {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let number =
            |name, default: f32| -> TractResult<f64> { Ok(node.get_attr_opt(name)?.unwrap_or(default).into()) };
        Ok(Self { epsilon: number("epsilon", 1e-5)?, momentum: number("momentum", 0.9)? })
    }
}

impl Kernel for BatchNorm {
    fn name(&self) -> &'static str {
        "BatchNormalization"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        Ok(tvec![required(inputs, 0)?, required(inputs, 3)?, required(inputs, 4)?])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        let vector = |slot| f64s(required(inputs, slot)?);
        let (scale, shift, mut mean, mut variance) = (vector(1)?, vector(2)?, vector(3)?, vector(4)?);
        ensure!(x.rank() >= 2, "an input of shape {:?}", x.shape());
        let (batch, channels) = (x.shape()[0], x.shape()[1]);
        let inner: usize = x.shape()[2..].iter().product();
        let fits = [&scale, &shift, &mean, &variance].iter().all(|v| v.len() == channels);
        ensure!(fits && batch * inner > 0, "parameters that do not fit {:?}", x.shape());
        let mut y = f64s(x)?;
        let count = (batch * inner) as f64;
        for c in 0..channels {
            let places = || (0..batch * inner).map(|k| (k / inner * channels + c) * inner + k % inner);
            let average = places().map(|k| y[k]).sum::<f64>() / count;
            let spread = places().map(|k| (y[k] - average).powi(2)).sum::<f64>() / count;
            let factor = scale[c] / (spread + self.epsilon).sqrt();
            places().for_each(|k| y[k] = (y[k] - average) * factor + shift[c]);
            mean[c] = mean[c] * self.momentum + average * (1.0 - self.momentum);
            variance[c] = variance[c] * self.momentum + spread * (1.0 - self.momentum);
        }
        let running = |slot, values: &[f64]| narrowed(required(inputs, slot)?.datum_type(), &[channels], values);
        Ok(tvec![narrowed(x.datum_type(), x.shape(), &y)?, running(3, &mean)?, running(4, &variance)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_batch_is_normalized_by_itself() {
        let x = Tensor::from_shape(&[2, 1, 1], &[1f32, 3.0]).unwrap();
        let (one, zero) = (tensor1(&[1f32]), tensor1(&[0f32]));
        let op = BatchNorm { epsilon: 0.0, momentum: 0.75 };
        let y = op.eval(&[Some(&x), Some(&one), Some(&zero), Some(&zero), Some(&one)]).unwrap();
        assert_eq!(y[0], Tensor::from_shape(&[2, 1, 1], &[-1f32, 1.0]).unwrap());
        assert_eq!((&y[1], &y[2]), (&tensor1(&[0.5f32]), &tensor1(&[1f32])));
        let none = Tensor::zero::<f32>(&[0, 1, 1]).unwrap();
        assert!(op.eval(&[Some(&none), Some(&one), Some(&zero), Some(&zero), Some(&one)]).is_err());
    }
}
