//! Unique.

use crate::error::Result;
use crate::ir::{DType, Dim};
use crate::ops::rules::{axis, int, product};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Distinct elements or slices, and where they were, which is which, and how often.
pub struct Unique;

impl OpSpec for Unique {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Unique", &[11])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let along = cx.node.attribute("axis").is_some();
        let values = match cx.shape(0) {
            None if along => None,
            _ if !along => Some(vec![Dim::Unknown]),
            shape => {
                let mut values = shape.unwrap_or_default().to_vec();
                let at = axis(int(cx, "axis", 0)?, values.len())?;
                values[at] = Dim::Unknown;
                Some(values)
            }
        };
        // One position per element (or slice) of the input.
        let all = match cx.shape(0) {
            Some(shape) if along => shape[axis(int(cx, "axis", 0)?, shape.len())?].clone(),
            Some(shape) => product(shape),
            None => Dim::Unknown,
        };
        let positions = |n: Dim| Inferred::tensor(Some(DType::I64), Some(vec![n]));
        let distinct = positions(Dim::Unknown);
        Ok(vec![Inferred::tensor(cx.elem(0), values), distinct.clone(), positions(all), distinct])
    }
}
