//! Identity.

use crate::error::Result;
use crate::ops::axes::{AxisLinks, LinkContext, elementwise_links};
use crate::ops::gradient::{Rule, reshape_backward, reshape_forward, rule};
use crate::ops::rules::{is_f32, vector};
use crate::ops::spec::{ChannelRole, InferContext, Inferred, OpSpec, QuantRole, Schema, op};

/// Its input under another name: the one op here that also passes sequences.
pub struct Identity;

impl OpSpec for Identity {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Identity", &[1, 13, 14, 16, 19, 21, 23, 24, 25])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let ty = cx.inputs.first().and_then(|i| i.as_ref()?.ty.cloned());
        Ok(vec![Inferred { ty, data: vector(cx, 0) }])
    }

    fn gradient(&self, _cx: &InferContext) -> Option<Rule> {
        rule!(reshape_forward, reshape_backward)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if is_f32(cx, 0) { QuantRole::PassThrough { input: 0 } } else { QuantRole::Opaque }
    }

    fn channels(&self, _cx: &InferContext, axis: usize) -> ChannelRole {
        ChannelRole::same(axis)
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        elementwise_links(cx, 0)
    }
}
