//! LayerNormalization.

use crate::error::{Error, Result};
use crate::ir::{DType, Dim};
use crate::ops::rules::{axis, int};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Normalization over the axes from `axis` on.
pub struct LayerNormalization;

impl OpSpec for LayerNormalization {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("LayerNormalization", &[17])] }
    }

    /// The statistics stay f32.
    fn allows_f16(&self, cx: &InferContext) -> bool {
        cx.used_outputs <= 1
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let at = int(cx, "axis", -1)?;
        let stash = int(cx, "stash_type", 1)?;
        let stash = i32::try_from(stash).ok().and_then(DType::from_onnx);
        let stash = stash.ok_or_else(|| Error::invalid("attribute \"stash_type\" is no element type"))?;
        let Some(shape) = cx.shape(0) else {
            return Ok(vec![Inferred::tensor(cx.elem(0), None)]);
        };
        let at = axis(at, shape.len())?;
        let reduced: Vec<Dim> =
            shape.iter().enumerate().map(|(k, d)| if k < at { d.clone() } else { Dim::Known(1) }).collect();
        let statistic = Inferred::tensor(Some(stash), Some(reduced));
        Ok(vec![Inferred::tensor(cx.elem(0), Some(shape.to_vec())), statistic.clone(), statistic])
    }
}
