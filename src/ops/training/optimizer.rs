//! Adagrad, Adam and Momentum of `ai.onnx.preview.training`.

use crate::error::{Error, Result};
use crate::ops::rules::same_type;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, foreign};

const DOMAIN: &str = "ai.onnx.preview.training";

/// Inputs are the rate, the step, then as many of each kind (tensors, gradients, states); outputs are new tensors and
/// states.
pub struct Optimizer;

impl OpSpec for Optimizer {
    fn schemas(&self) -> &'static [Schema] {
        &const { [foreign(DOMAIN, "Adagrad", &[1]), foreign(DOMAIN, "Adam", &[1]), foreign(DOMAIN, "Momentum", &[1])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let kinds = if &*cx.node.op.op_type == "Adam" { 4 } else { 3 };
        let rest = cx.inputs.len().saturating_sub(2);
        if !rest.is_multiple_of(kinds) {
            return Err(Error::invalid(format!("{rest} tensors do not make {kinds} lists of one length")));
        }
        let each = rest / kinds;
        // Everything but the gradients, the second list.
        let kept = (0..kinds).filter(|k| *k != 1).flat_map(|k| (0..each).map(move |i| 2 + k * each + i));
        Ok(kept.map(|slot| same_type(cx, slot)).collect())
    }
}
