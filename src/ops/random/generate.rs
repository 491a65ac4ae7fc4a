//! RandomNormal and RandomUniform.

use crate::error::{Error, Result};
use crate::ir::{DType, Dim};
use crate::ops::rules::{elem_attribute, ints, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Random numbers of the shape in an attribute.
pub struct Generate;

impl OpSpec for Generate {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("RandomNormal", &[1, 22]), op("RandomUniform", &[1, 22])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let elem = elem_attribute(cx, "dtype")?.unwrap_or(DType::F32);
        let shape = ints(cx, "shape")?.ok_or_else(|| Error::invalid("attribute \"shape\" is missing"))?;
        if let Some(n) = shape.iter().find(|n| **n < 0) {
            return Err(Error::invalid(format!("attribute \"shape\" holds {n}")));
        }
        output(Some(elem), Some(shape.iter().copied().map(Dim::Known).collect()))
    }

    fn deterministic(&self) -> bool {
        false
    }
}
