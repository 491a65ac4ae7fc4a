//! IsNaN and IsInf.

use crate::error::Result;
use crate::ir::{DType, Dim};
use crate::ops::rules::output;
use crate::ops::spec::{InferContext, Inferred, OpKey, OpSpec, onnx};

/// A boolean per element.
pub struct Predicate;

impl OpSpec for Predicate {
    fn keys(&self) -> &'static [OpKey] {
        &const { [onnx("IsNaN"), onnx("IsInf")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(Some(DType::Bool), cx.shape(0).map(<[Dim]>::to_vec))
    }
}
