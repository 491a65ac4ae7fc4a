//! NonZero.

use crate::error::Result;
use crate::ir::{DType, Dim};
use crate::ops::rules::output;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Coordinates of the elements other than 0, as many as there are.
pub struct NonZero;

impl OpSpec for NonZero {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("NonZero", &[9, 13])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let rank = cx.shape(0).map_or(Dim::Unknown, |s| Dim::Known(s.len() as i64));
        output(Some(DType::I64), Some(vec![rank, Dim::Unknown]))
    }
}
