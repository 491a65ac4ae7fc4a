//! RegexFullMatch.

use crate::error::Result;
use crate::ir::{DType, Dim};
use crate::ops::rules::output;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Whether each string matches a pattern.
pub struct RegexFullMatch;

impl OpSpec for RegexFullMatch {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("RegexFullMatch", &[20])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(Some(DType::Bool), cx.shape(0).map(<[Dim]>::to_vec))
    }
}
