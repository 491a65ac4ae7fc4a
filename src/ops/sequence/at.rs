//! SequenceAt.

use crate::error::Result;
use crate::ops::rules::any_element;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// One element of a sequence.
pub struct SequenceAt;

impl OpSpec for SequenceAt {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("SequenceAt", &[11])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        Ok(vec![Inferred { ty: any_element(cx, 0), data: None }])
    }
}
