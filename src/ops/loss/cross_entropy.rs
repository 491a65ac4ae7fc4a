//! SoftmaxCrossEntropyLoss and NegativeLogLikelihoodLoss.

use crate::error::Result;
use crate::ir::Dim;
use crate::ops::rules::string;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Loss per label, or their sum or mean; SoftmaxCrossEntropyLoss can give log probabilities too.
pub struct CrossEntropy;

impl OpSpec for CrossEntropy {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("NegativeLogLikelihoodLoss", &[12, 13, 22]), op("SoftmaxCrossEntropyLoss", &[12, 13])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let each = string(cx, "reduction", "mean")? == "none";
        let shape = if each { cx.shape(1).map(<[Dim]>::to_vec) } else { Some(vec![]) };
        let log_probabilities = Inferred::tensor(cx.elem(0), cx.shape(0).map(<[Dim]>::to_vec));
        Ok(vec![Inferred::tensor(cx.elem(0), shape), log_probabilities])
    }
}
