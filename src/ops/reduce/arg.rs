//! ArgMax and ArgMin.

use crate::error::Result;
use crate::ir::DType;
use crate::ops::rules::{axis_mask, int, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

use super::reduction::reduced;

/// Where the extreme element along an axis is.
pub struct Arg;

impl OpSpec for Arg {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("ArgMax", &[1, 11, 12, 13]), op("ArgMin", &[1, 11, 12, 13])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let (at, keep) = (int(cx, "axis", 0)?, int(cx, "keepdims", 1)? != 0);
        let Some(shape) = cx.shape(0) else { return output(Some(DType::I64), None) };
        let mask = axis_mask(&[at], shape.len())?;
        output(Some(DType::I64), Some(reduced(shape, &mask, keep)))
    }
}
