//! MelWeightMatrix.

use crate::error::Result;
use crate::ir::{DType, Dim};
use crate::ops::rules::{elem_attribute, output, single};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Weights from the bins of a spectrum to mel bands.
pub struct MelWeightMatrix;

impl OpSpec for MelWeightMatrix {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("MelWeightMatrix", &[17])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let elem = elem_attribute(cx, "output_datatype")?.unwrap_or(DType::F32);
        let rows = match single(cx, 1) {
            Some(Dim::Known(n)) if n >= 0 => Dim::Known(n / 2 + 1),
            _ => Dim::Unknown,
        };
        let bands = single(cx, 0).filter(|d| !matches!(d, Dim::Known(n) if *n < 0)).unwrap_or(Dim::Unknown);
        output(Some(elem), Some(vec![rows, bands]))
    }
}
