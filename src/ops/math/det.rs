//! Det.

use crate::error::Result;
use crate::ops::rules::{output, require_rank};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Determinant of the matrices along the last two axes.
pub struct Det;

impl OpSpec for Det {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Det", &[11, 22])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        require_rank(cx, 0, 2)?;
        output(cx.elem(0), cx.shape(0).map(|s| s[..s.len().saturating_sub(2)].to_vec()))
    }
}
