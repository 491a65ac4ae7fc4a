//! IsNaN and IsInf.

use crate::error::Result;
use crate::ir::{DType, Dim};
use crate::ops::axes::{AxisLinks, LinkContext, elementwise_links};
use crate::ops::rules::output;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// A boolean per element.
pub struct Predicate;

impl OpSpec for Predicate {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("IsNaN", &[9, 13, 20]), op("IsInf", &[10, 20]).f16(20)] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(Some(DType::Bool), cx.shape(0).map(<[Dim]>::to_vec))
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        elementwise_links(cx, 0)
    }
}
