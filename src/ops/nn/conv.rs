//! Conv.

use crate::error::Result;
use crate::ir::Type;
use crate::math::{Array, ConvGeometry, Unfold, conv_backward, conv_forward};
use crate::ops::axes::{AxisLinks, AxisMap, Kept, LinkContext, Narrowed, input, output as out};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{count, int, is_f32, output};
use crate::ops::spec::{ComputeRole, InferContext, Inferred, OpSpec, Purpose, QuantRole, Schema, WeightRole, op};
use crate::ops::window::{Placed, conv_patches, conv_shape, last_three, placed};

/// Convolution.
pub struct Conv;

impl OpSpec for Conv {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Conv", &[1, 11, 22])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(cx.elem(0), conv_shape(cx, 0, 1)?)
    }

    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        let rank = cx.shape(0).map_or(0, <[_]>::len);
        if rank > 5 { None } else { rule!(forward, backward) }
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if !is_f32(cx, 0) {
            return QuantRole::Opaque;
        }
        QuantRole::Compute(ComputeRole { activation: 0, weight: 1, bias: Some(2), weight_axis: 0 })
    }

    fn weight(&self, cx: &InferContext) -> Option<WeightRole> {
        let unfold = conv_patches(cx, 1).map(|patches| (0, Unfold::Patches(patches)));
        Some(WeightRole { slot: 1, channel_axis: 0, block_axis: 1, purpose: Purpose::Product(unfold) })
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

/// The sizes of a convolution of `x` with `w` that gives `y`.
fn geometry(cx: &InferContext, x: &[usize], w: &[usize], y: &[usize]) -> Result<ConvGeometry> {
    sized(cx, x, w, y, placed(cx, &w[2..], &x[2..], &y[2..])?)
}

/// The sizes of a convolution of `x` with `w` that gives `y`, whose windows lie as `axes` say.
pub fn sized(cx: &InferContext, x: &[usize], w: &[usize], y: &[usize], axes: [Placed; 3]) -> Result<ConvGeometry> {
    let groups = int(cx, "group", 1)?.max(1) as usize;
    Ok(ConvGeometry {
        batch: x[0],
        groups,
        inputs: w[1],
        outputs: w[0] / groups,
        input: last_three(&x[2..], 1),
        output: last_three(&y[2..], 1),
        kernel: axes.map(|a| a.kernel),
        stride: axes.map(|a| a.stride),
        dilation: axes.map(|a| a.dilation),
        pad: axes.map(|a| a.before),
    })
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let (x, w, dims) = (f.float(0)?, f.float(1)?, f.shape()?);
    let g = geometry(f.cx, x.dims(), w.dims(), &dims)?;
    let y = conv_forward(&g, x.data(), w.data(), f.optional(2).map(Array::data));
    Ok(Computed::one(Array::new(&dims, y)))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let (x, w, dy) = (b.float(0)?, b.float(1)?, b.grad()?);
    let g = geometry(b.cx, x.dims(), w.dims(), dy.dims())?;
    let wants = [0, 1, 2].map(|k| b.wants(k));
    let [dx, dw, db] = conv_backward(&g, x.data(), w.data(), dy.data(), wants);
    let channels = [w.dims()[0]];
    let shaped = [(x.dims(), dx), (w.dims(), dw), (&channels[..], db)].into_iter().zip(wants);
    let mut grads: Gradients<T> = shaped.map(|((dims, d), want)| want.then(|| Array::new(dims, d))).collect();
    grads.truncate(b.inputs.len());
    Ok(grads)
}
