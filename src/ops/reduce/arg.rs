//! ArgMax and ArgMin.

use crate::error::Result;
use crate::ir::DType;
use crate::ops::axes::{AxisFact, AxisLinks, LinkContext};
use crate::ops::rules::{axis_mask, int, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

use super::reduction::{reduced, reduction_links};

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

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let (at, keep) = (int(cx.cx, "axis", 0).ok()?, int(cx.cx, "keepdims", 1).ok()? != 0);
        let mask = axis_mask(&[at], cx.rank(0)?).ok()?;
        let mut links = reduction_links(&mask, keep, "");
        links.0.retain(|fact| !matches!(fact, AxisFact::Barrier { .. })); // positions count: not mentioned is a barrier
        Some(links)
    }
}
