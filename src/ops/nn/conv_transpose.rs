//! ConvTranspose.

use crate::error::{Error, Result};
use crate::ir::{Dim, Type};
use crate::math::{Array, Blocks, ConvGeometry, conv_backward, conv_forward};
use crate::ops::axes::{AxisLinks, AxisMap, Kept, LinkContext, Narrowed, input, output as out};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::nn::conv::sized;
use crate::ops::rules::{count, int, ints, is_f32, mul_dims, output, string};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Purpose, Schema, StoredRole, WeightRole, op};
use crate::ops::window::{Window, kernel_of, last_three, placed};

/// Transposed convolution. It has no quantized kernel in ONNX or ONNX Runtime, so only its weight is quantized.
pub struct ConvTranspose;

impl OpSpec for ConvTranspose {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("ConvTranspose", &[1, 11, 22])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(cx.elem(0), shape(cx)?)
    }

    /// `[Cin, Cout / group, ...]`: groups share the scales of their channels.
    fn stored_weights(&self, cx: &InferContext) -> Vec<StoredRole> {
        if is_f32(cx, 0) { vec![StoredRole { slot: 1, rows: vec![1] }] } else { vec![] }
    }

    fn weight(&self, _cx: &InferContext) -> Option<WeightRole> {
        // [inputs, outputs / group, window...]
        Some(WeightRole { slot: 1, channel_axis: 1, block_axis: 0, purpose: Purpose::Product(None) })
    }

    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        let rank = cx.shape(0).map_or(0, <[_]>::len);
        if rank > 5 { None } else { rule!(forward, backward) }
    }

    fn macs(&self, cx: &InferContext, _outputs: &[Option<&Type>]) -> Option<u64> {
        // Each input element meets the weight's elements per input channel: `Cout / group * prod(kernel)`.
        Some(count(cx.shape(0)?).saturating_mul(count(cx.shape(1)?.get(1..)?)))
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let group = usize::try_from(int(cx.cx, "group", 1).ok()?).ok().filter(|&g| g > 0)?;
        let (inputs, outputs) = (cx.size(input(1, 0))? / group, cx.size(input(1, 1))?);
        let mut links = AxisLinks::default();
        links.same(input(0, 0), out(0, 0));
        links.same(input(0, 1), input(1, 0));
        if cx.cx.present(2) {
            links.same(input(2, 0), out(0, 1));
        }
        if group == 1 {
            links.same(input(1, 1), out(0, 1));
        } else if is_whole(group, inputs, outputs) {
            links.tie(input(0, 1), inputs, group);
            links.tie(out(0, 1), outputs, group);
            let of_output = (0..group * outputs).map(|k| k / outputs * inputs).collect();
            links.link(out(0, 1), input(0, 1), AxisMap::Select(of_output));
        } else {
            links.tie(input(0, 1), 1, inputs);
            links.link(out(0, 1), input(1, 1), AxisMap::Stride { inner: 1 });
        }
        Some(links)
    }

    fn narrow(&self, cx: &LinkContext, kept: &Kept) -> Narrowed {
        let group = int(cx.cx, "group", 1).ok().and_then(|g| usize::try_from(g).ok()).unwrap_or(1).max(1);
        let (Some(rows), Some(outputs)) = (cx.size(input(1, 0)), cx.size(input(1, 1))) else { return Narrowed::Same };
        let inputs = rows / group;
        match kept.of(input(0, 1)) {
            Some(channels) if is_whole(group, inputs, outputs) => {
                Narrowed::with_int(cx.cx.node, "group", channels.len() / inputs.max(1))
            }
            _ => Narrowed::Same,
        }
    }
}

/// Whether channels go with their whole group only, as those of a depthwise one.
fn is_whole(group: usize, inputs: usize, outputs: usize) -> bool {
    group > 1 && group >= inputs.max(outputs)
}

fn shape(cx: &InferContext) -> Result<Option<Vec<Dim>>> {
    let (Some(xs), Some(ws)) = (cx.shape(0), cx.shape(1)) else { return Ok(None) };
    if xs.len() < 3 || xs.len() != ws.len() {
        let (a, b) = (xs.len(), ws.len());
        return Err(Error::invalid(format!(
            "input has rank {a} and weight rank {b}, expected equal ranks of 3 or more"
        )));
    }
    let n = xs.len() - 2;
    let window = Window::read(cx, kernel_of(cx, &ws[2..])?)?;
    let mut shape = vec![xs[0].clone(), mul_dims(&ws[1], &Dim::Known(int(cx, "group", 1)?))];
    if let Some(given) = ints(cx, "output_shape")? {
        // Some exporters give all dimensions; the specification wants the spatial ones.
        let given = given.get(given.len().saturating_sub(n)..).filter(|g| g.len() == n);
        let given = given.ok_or_else(|| Error::invalid(format!("attribute \"output_shape\" needs {n} elements")))?;
        shape.extend(given.iter().copied().map(Dim::Known));
        return Ok(Some(shape));
    }
    let extra = ints(cx, "output_padding")?.unwrap_or_default();
    if !extra.is_empty() && extra.len() != n {
        return Err(Error::invalid(format!("attribute \"output_padding\" has {} elements, expected {n}", extra.len())));
    }
    for (i, size) in xs[2..].iter().enumerate() {
        shape.push(window.transposed(i, size, extra.get(i).copied().unwrap_or(0))?);
    }
    Ok(Some(shape))
}

/// The convolution of which this is the transpose: from `y` to `x`.
fn geometry(cx: &InferContext, x: &[usize], w: &[usize], y: &[usize]) -> Result<ConvGeometry> {
    let mut axes = placed(cx, &w[2..], &y[2..], &x[2..])?;
    let auto = string(cx, "auto_pad", "NOTSET")?;
    let (input, output) = (last_three(&x[2..], 1), last_three(&y[2..], 1));
    if auto.starts_with("SAME") || ints(cx, "output_shape")?.is_some() {
        let extra = last_three(ints(cx, "output_padding")?.unwrap_or_default(), 0);
        for (i, a) in axes.iter_mut().enumerate() {
            let full = (a.stride * input[i].saturating_sub(1) + (a.kernel - 1) * a.dilation + 1) as isize;
            let total = (full + extra[i] as isize - output[i] as isize).max(0);
            a.before = if auto == "SAME_UPPER" { total / 2 } else { total - total / 2 };
        }
    }
    sized(cx, y, w, x, axes)
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let (x, w, dims) = (f.float(0)?, f.float(1)?, f.shape()?);
    let g = geometry(f.cx, x.dims(), w.dims(), &dims)?;
    let [mut y, ..] = conv_backward(&g, &[], w.data(), x.data(), [true, false, false]);
    let plane: usize = dims[2..].iter().product();
    if let Some(bias) = f.optional(2)
        && plane > 0
    {
        let planes = y.chunks_mut(plane).zip(bias.data().iter().cycle());
        planes.for_each(|(y, &b)| y.iter_mut().for_each(|y| *y += b));
    }
    Ok(Computed::one(Array::new(&dims, y)))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let (x, w, dy) = (b.float(0)?, b.float(1)?, b.grad()?);
    let g = geometry(b.cx, x.dims(), w.dims(), dy.dims())?;
    let mut grads = vec![None; b.inputs.len()];
    if b.wants(0) {
        grads[0] = Some(Array::new(x.dims(), conv_forward(&g, dy.data(), w.data(), None)));
    }
    if b.wants(1) {
        let [_, dw, _] = conv_backward(&g, dy.data(), w.data(), x.data(), [false, true, false]);
        grads[1] = Some(Array::new(w.dims(), dw));
    }
    if b.wants(2) {
        let mut reduced = vec![true; dy.rank()];
        reduced[1] = false;
        grads[2] = Some(Blocks::new(dy.dims(), &reduced).sum(dy));
    }
    Ok(grads)
}
