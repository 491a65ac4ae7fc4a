//! Multinomial.

use crate::error::Result;
use crate::ir::{DType, Dim};
use crate::ops::rules::{elem_attribute, int, output, size};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Draws classes: `[batch, draws]`.
pub struct Multinomial;

impl OpSpec for Multinomial {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Multinomial", &[7, 22])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let elem = elem_attribute(cx, "dtype")?.unwrap_or(DType::I32);
        let draws = int(cx, "sample_size", 1)?;
        let draws = if draws >= 0 { Dim::Known(draws) } else { Dim::Unknown };
        output(Some(elem), Some(vec![size(cx, 0, 0), draws]))
    }

    fn deterministic(&self) -> bool {
        false
    }
}
