//! NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss.

use super::super::custom::{Fact, Kernel};
use super::common::{f64s, i64s, narrowed, text};
use super::layout::{optional, required};
use super::log_softmax::log_softmax;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// How the losses of the elements make the output.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reduction {
    None,
    Sum,
    Mean,
}

/// `NegativeLogLikelihoodLoss` (specification: versions 12 to 22), or with `softmax` the `SoftmaxCrossEntropyLoss` (versions 12
/// and 13), whose second output is the logarithm of the softmax. In f64, rounded at the end.
#[derive(Debug)]
pub(super) struct Loss {
    reduction: Reduction,
    ignored: Option<i64>,
    softmax: bool,
}

impl Loss {
    pub(super) fn parse(node: &NodeProto, softmax: bool) -> TractResult<Self> {
        let reduction = match &*text(node, "reduction", "mean")? {
            "none" => Reduction::None,
            "sum" => Reduction::Sum,
            "mean" => Reduction::Mean,
            other => bail!("reduction \"{other}\""),
        };
        Ok(Self { reduction, ignored: node.get_attr_opt("ignore_index")?, softmax })
    }

    /// Loss and weight of each target.
    fn elements(
        &self,
        log: &[f64],
        [_, classes, inner]: [usize; 3],
        inputs: &[Option<&Tensor>],
    ) -> TractResult<Losses> {
        let targets = i64s(required(inputs, 1)?)?;
        let weights = optional(inputs, 2).map(f64s).transpose()?;
        if let Some(w) = &weights {
            ensure!(w.len() == classes, "{} weights for {classes} classes", w.len());
        }
        let mut all = Losses { losses: vec![], weights: vec![] };
        for (k, &target) in targets.iter().enumerate() {
            let (loss, weight) = if Some(target) == self.ignored {
                (0.0, 0.0)
            } else {
                let class = usize::try_from(target).ok().filter(|&c| c < classes);
                let class = class.with_context(|| format!("target {target} of {classes} classes"))?;
                let weight = weights.as_ref().map_or(1.0, |w| w[class]);
                (-log[(k / inner * classes + class) * inner + k % inner] * weight, weight)
            };
            all.losses.push(loss);
            all.weights.push(weight);
        }
        Ok(all)
    }
}

struct Losses {
    losses: Vec<f64>,
    weights: Vec<f64>,
}

/// Samples, classes, elements per class.
fn layout(shape: &[usize]) -> TractResult<[usize; 3]> {
    ensure!(shape.len() >= 2, "scores of rank {}", shape.len());
    Ok([shape[0], shape[1], shape[2..].iter().product()])
}

impl Kernel for Loss {
    fn name(&self) -> &'static str {
        if self.softmax { "SoftmaxCrossEntropyLoss" } else { "NegativeLogLikelihoodLoss" }
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let (x, target) = (required(inputs, 0)?, required(inputs, 1)?);
        let shape = if self.reduction == Reduction::None { target.shape } else { tvec![] };
        Ok(tvec![Fact::new(x.dtype, shape), Fact::new(x.dtype, x.shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let (x, target) = (required(inputs, 0)?, required(inputs, 1)?);
        let shape = layout(x.shape())?;
        let without: TVec<usize> = x.shape().iter().enumerate().filter(|(k, _)| *k != 1).map(|(_, &d)| d).collect();
        ensure!(*without == *target.shape(), "scores {:?} and targets {:?}", x.shape(), target.shape());
        let mut log = f64s(x)?;
        if self.softmax {
            log_softmax(&mut log, shape);
        }
        let all = self.elements(&log, shape, inputs)?;
        let dtype = x.datum_type();
        let sum: f64 = all.losses.iter().sum();
        let loss = match self.reduction {
            Reduction::None => narrowed(dtype, target.shape(), &all.losses),
            Reduction::Sum => narrowed(dtype, &[], &[sum]),
            Reduction::Mean => narrowed(dtype, &[], &[sum / all.weights.iter().sum::<f64>()]),
        }?;
        Ok(tvec![loss, narrowed(dtype, x.shape(), &log)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(reduction: Reduction, softmax: bool, x: &Tensor, target: &Tensor) -> TractResult<TVec<Tensor>> {
        Loss { reduction, ignored: Some(-1), softmax }.eval(&[Some(x), Some(target)])
    }

    #[test]
    fn what_is_ignored_has_no_weight() {
        let x = tensor2(&[[-1.0f32, -2.0], [-3.0, -4.0]]);
        assert_eq!(loss(Reduction::Mean, false, &x, &tensor1(&[1i64, -1])).unwrap()[0], tensor0(2.0f32));
        assert_eq!(loss(Reduction::Sum, false, &x, &tensor1(&[1i64, 0])).unwrap()[0], tensor0(5.0f32));
        assert!(loss(Reduction::Sum, false, &x, &tensor1(&[2i64, 0])).is_err());
    }

    #[test]
    fn large_scores_do_not_overflow() {
        let x = tensor2(&[[1000.0f32, 1000.0]]);
        let y = loss(Reduction::None, true, &x, &tensor1(&[0i32])).unwrap();
        assert_eq!(y[0], tensor1(&[std::f32::consts::LN_2]));
        assert_eq!(y[1], tensor2(&[[-std::f32::consts::LN_2, -std::f32::consts::LN_2]]));
    }
}
