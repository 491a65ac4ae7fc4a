//! NonMaxSuppression.

use crate::error::Result;
use crate::ir::{DType, Dim};
use crate::ops::rules::{int, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Boxes that no better box overlaps: rows of (batch, class, box).
pub struct NonMaxSuppression;

impl OpSpec for NonMaxSuppression {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("NonMaxSuppression", &[10, 11]).no_f16()] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        int(cx, "center_point_box", 0)?;
        output(Some(DType::I64), Some(vec![Dim::Unknown, Dim::Known(3)]))
    }
}
