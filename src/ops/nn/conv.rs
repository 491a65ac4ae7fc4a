//! Conv.

use crate::error::Result;
use crate::ir::Type;
use crate::ops::axes::{AxisLinks, AxisMap, Kept, LinkContext, Narrowed, input, output as out};
use crate::ops::rules::{count, int, is_f32, output};
use crate::ops::spec::{ComputeRole, InferContext, Inferred, OpSpec, QuantRole, Schema, op};
use crate::ops::window::conv_shape;

/// Convolution.
pub struct Conv;

impl OpSpec for Conv {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Conv", &[1, 11, 22])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(cx.elem(0), conv_shape(cx, 0, 1)?)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if !is_f32(cx, 0) {
            return QuantRole::Opaque;
        }
        QuantRole::Compute(ComputeRole { activation: 0, weight: 1, bias: Some(2), weight_axis: 0 })
    }

    fn macs(&self, cx: &InferContext, outputs: &[Option<&Type>]) -> Option<u64> {
        conv_macs(cx, 1, outputs)
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        conv_links(cx, 1, 2)
    }

    fn narrow(&self, cx: &LinkContext, kept: &Kept) -> Narrowed {
        narrow_groups(cx, kept, 1)
    }
}

/// Output elements times the weight's elements per output channel: `Cin / group * prod(kernel)`.
pub fn conv_macs(cx: &InferContext, w: usize, outputs: &[Option<&Type>]) -> Option<u64> {
    let out = outputs.first().copied().flatten()?.shape()?;
    let per_element = count(cx.shape(w)?.get(1..)?);
    Some(count(out).saturating_mul(per_element))
}

/// How many groups a convolution has, and whether channels can go with their whole group only: those of a depthwise one,
/// where a group is a channel, and of one with more groups than channels in each.
fn groups(cx: &LinkContext, w: usize) -> Option<(usize, usize, usize, bool)> {
    let group = usize::try_from(int(cx.cx, "group", 1).ok()?).ok().filter(|&g| g > 0)?;
    let (inputs, outputs) = (cx.size(input(w, 1))?, cx.size(input(w, 0))? / group);
    Some((group, inputs, outputs, group > 1 && group >= inputs.max(outputs)))
}

/// Links of a convolution whose weight `[Cout, Cin / group, ...]` is at slot `w` and whose bias is at slot `b`. Grouped
/// channels go either with their whole group, or the same ones in every group.
pub fn conv_links(cx: &LinkContext, w: usize, b: usize) -> Option<AxisLinks> {
    let mut links = AxisLinks::default();
    links.same(input(0, 0), out(0, 0));
    links.same(input(w, 0), out(0, 1));
    if cx.cx.present(b) {
        links.same(input(b, 0), out(0, 1));
    }
    let (group, inputs, outputs, whole) = groups(cx, w)?;
    if group == 1 {
        links.same(input(0, 1), input(w, 1));
    } else if whole {
        links.tie(input(0, 1), inputs, group);
        links.tie(out(0, 1), outputs, group);
        let first = (0..group).map(|g| g * inputs).collect::<Vec<_>>();
        let of_output = (0..group * outputs).map(|k| first[k / outputs]).collect();
        links.link(out(0, 1), input(0, 1), AxisMap::Select(of_output));
    } else {
        links.link(input(0, 1), input(w, 1), AxisMap::Stride { inner: 1 });
        links.tie(out(0, 1), 1, outputs);
    }
    Some(links)
}

/// The number of groups that stay.
pub fn narrow_groups(cx: &LinkContext, kept: &Kept, w: usize) -> Narrowed {
    match groups(cx, w) {
        Some((_, inputs, _, true)) => match kept.of(input(0, 1)) {
            Some(channels) => Narrowed::with_int(cx.cx.node, "group", channels.len() / inputs.max(1)),
            None => Narrowed::Same,
        },
        _ => Narrowed::Same,
    }
}
