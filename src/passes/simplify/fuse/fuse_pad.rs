//! Padding before a convolution or pooling becomes its own.

use super::matching::Look;
use crate::error::Result;
use crate::ir::{AttributeValue, Graph, NodeId, ValueId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `p = Pad(x, pads, e)`, `y = Conv(p, W, b)`. After: `y = Conv<pads = its own + pads>(x, W, b)`. The same for
/// AveragePool and MaxPool.
///
/// When: Pad is in mode `constant`, without axes, with constant pads, none negative, none on the axes of batch and
/// channel; `p` has no other use and is no graph output; the window has auto_pad NOTSET. `e` is 0 before Conv and
/// AveragePool, and minus infinity before MaxPool (padding with 0 is not what MaxPool does). AveragePool: ceil_mode 0 (whose
/// last window would reach beyond), no dilations, and count_include_pad 1, or 0 and no pads of its own: then it becomes 1.
/// MaxPool: ceil_mode 0, no dilations, no indices. Pools: pads smaller than the kernel, which runtimes demand.
/// Why it is equal: the window pads with the same element.
pub struct FusePad;

impl Rewrite for FusePad {
    fn name(&self) -> &'static str {
        "fuse_pad"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("Conv"), onnx("AveragePool"), onnx("MaxPool")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        Ok(apply(Look::new(graph, cx), id))
    }
}

fn apply(look: Look, id: NodeId) -> Option<Patch> {
    let graph = look.graph;
    let pad = look.inner(graph.input(id, 0)?, "Pad")?;
    let x = graph.input(pad, 0)?;
    let added = spatial_pads(look, pad)?;
    let mut node = graph.node(id).clone();
    let rank = added.len() / 2;
    let own = node.ints("pads").map_or_else(|| vec![0; 2 * rank], <[i64]>::to_vec);
    let automatic = node.string("auto_pad").is_some_and(|mode| mode != "NOTSET");
    if automatic
        || own.len() != added.len()
        || node.attribute("auto_pad").is_some() && node.string("auto_pad").is_none()
    {
        return None;
    }
    let element = pad_element(look, pad)?;
    let sum: Option<Vec<i64>> = own.iter().zip(&added).map(|(a, b)| a.checked_add(*b)).collect();
    let pads = sum?;
    let pool = !look.is_op(id, "Conv");
    if pool {
        let kernel = node.ints("kernel_shape").filter(|k| k.len() == rank)?;
        let small = (0..2 * rank).all(|k| pads[k] < kernel[k % rank]);
        let plain = node.int("ceil_mode").unwrap_or(0) == 0 && node.attribute("dilations").is_none();
        let one_output = graph.output(id, 1).is_none();
        (small && plain && one_output).then_some(())?;
    }
    if look.is_op(id, "MaxPool") {
        (element == f64::NEG_INFINITY).then_some(())?;
    } else {
        (element == 0.0).then_some(())?;
    }
    if look.is_op(id, "AveragePool") {
        let counts = node.int("count_include_pad").unwrap_or(0) != 0;
        (look.cx.opset >= 7 && (counts || own.iter().all(|&p| p == 0))).then_some(())?;
        node.set("count_include_pad", AttributeValue::Int(1));
    }
    node.set("pads", AttributeValue::Ints(pads));
    let y = graph.output(id, 0)?;
    let mut inputs: Vec<_> = graph.node_inputs(id).into_iter().map(|v: Option<ValueId>| v.map(Into::into)).collect();
    *inputs.first_mut()? = Some(x.into());
    let mut patch = Patch::default();
    let out = patch.node(node, &inputs, graph.name(y), graph.ty(y).cloned());
    patch.replace(y, out);
    Some(patch)
}

/// Pads of the spatial axes: all begins, then all ends.
fn spatial_pads(look: Look, pad: NodeId) -> Option<Vec<i64>> {
    let node = look.graph.node(pad);
    let constant_mode = node.attribute("mode").is_none() || node.string("mode") == Some("constant");
    if !constant_mode || look.graph.input(pad, 3).is_some() {
        return None;
    }
    let all = match look.graph.input(pad, 1) {
        Some(pads) => look.constant(pads)?.to_i64().ok()?,
        None => node.ints("pads").filter(|_| look.cx.opset < 11)?.to_vec(),
    };
    let rank = all.len() / 2;
    if rank < 3 || all.len() != 2 * rank || all.iter().any(|&p| p < 0) {
        return None;
    }
    let (begins, ends) = all.split_at(rank);
    let elsewhere = begins[..2].iter().chain(&ends[..2]).any(|&p| p != 0);
    (!elsewhere).then(|| [&begins[2..], &ends[2..]].concat())
}

/// What it pads with.
fn pad_element(look: Look, pad: NodeId) -> Option<f64> {
    match look.graph.input(pad, 2) {
        Some(v) => Some(look.scalar(v)?.value),
        None if look.cx.opset < 11 => Some(f64::from(look.graph.node(pad).float("value").unwrap_or(0.0))),
        None => Some(0.0),
    }
}
