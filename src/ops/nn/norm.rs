//! Normalizations whose only output has the input's type.

use crate::error::Result;
use crate::ops::rules::same_as;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// InstanceNormalization, LRN and relatives.
pub struct Norm;

impl OpSpec for Norm {
    fn schemas(&self) -> &'static [Schema] {
        &const {
            [
                op("InstanceNormalization", &[1, 6, 22]),
                op("RMSNormalization", &[23]),
                op("MeanVarianceNormalization", &[9, 13]),
                op("LpNormalization", &[1, 22]),
                op("LRN", &[1, 13]),
            ]
        }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        same_as(cx, 0)
    }
}
