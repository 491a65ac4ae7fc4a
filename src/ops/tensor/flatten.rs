//! Flatten.

use super::reshape::reshape_links;
use crate::error::Result;
use crate::ir::Dim;
use crate::ops::axes::{AxisLinks, LinkContext};
use crate::ops::gradient::{Rule, reshape_backward, reshape_forward, rule};
use crate::ops::rules::{axis, int, is_f32, output, product};
use crate::ops::spec::{ChannelRole, InferContext, Inferred, OpSpec, QuantRole, Schema, op};

/// Makes a matrix by joining the axes before and from `axis` on.
pub struct Flatten;

impl OpSpec for Flatten {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Flatten", &[1, 9, 11, 13, 21, 23, 24, 25])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let at = int(cx, "axis", 1)?;
        let Some(shape) = cx.shape(0) else { return output(cx.elem(0), None) };
        let rank = shape.len();
        let at = if i64::try_from(rank).is_ok_and(|r| r == at) { rank } else { axis(at, rank)? };
        output(cx.elem(0), Some(vec![product(&shape[..at]), product(&shape[at..])]))
    }

    fn gradient(&self, _cx: &InferContext) -> Option<Rule> {
        rule!(reshape_forward, reshape_backward)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if is_f32(cx, 0) { QuantRole::PassThrough { input: 0 } } else { QuantRole::Opaque }
    }

    fn channels(&self, cx: &InferContext, axis: usize) -> ChannelRole {
        let behind = cx.shape(0).and_then(|s| s.get(axis + 1..)).map(product);
        match (int(cx, "axis", 1), behind) {
            (Ok(1), Some(Dim::Known(n))) if axis == 1 && n > 0 => {
                ChannelRole::Passes { inputs: vec![0], axis, repeat: n as usize }
            }
            _ => ChannelRole::Barrier,
        }
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        reshape_links(cx)
    }
}
