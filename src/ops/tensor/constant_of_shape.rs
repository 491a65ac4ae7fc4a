//! ConstantOfShape.

use crate::error::{Error, Result};
use crate::ir::{DType, Dim};
use crate::ops::rules::{DATA_LIMIT, output, requested_shape};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// A tensor of one repeated element.
pub struct ConstantOfShape;

impl OpSpec for ConstantOfShape {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("ConstantOfShape", &[9, 20, 21, 23, 24, 25])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let value = cx.node.tensor("value");
        if value.is_some_and(|t| t.len() != 1) {
            return Err(Error::invalid("attribute \"value\" does not hold one element"));
        }
        let elem = value.map_or(DType::F32, |t| t.dtype);
        let shape = requested_shape(cx, 0)?;
        let repeated = value.filter(|t| t.dtype.is_int()).and_then(|t| t.scalar_i64());
        let len = match shape.as_deref() {
            Some([]) => Some(1),
            Some([n]) => n.known().filter(|&n| n <= DATA_LIMIT),
            _ => None,
        };
        let data = repeated.zip(len).map(|(value, len)| vec![Dim::Known(value); len]);
        let mut out = output(Some(elem), shape)?;
        if let [inferred] = &mut out[..] {
            inferred.data = data;
        }
        Ok(out)
    }
}
