//! ConcatFromSequence.

use crate::error::Result;
use crate::ops::rules::{content_type, int, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Joins, or stacks, the elements of a sequence.
pub struct ConcatFromSequence;

impl OpSpec for ConcatFromSequence {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("ConcatFromSequence", &[11])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        int(cx, "axis", 0)?;
        output(content_type(cx, 0).and_then(|t| t.elem()), None)
    }
}
