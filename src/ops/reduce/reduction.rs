//! The reductions: axes are an attribute before operator set 13 (ReduceSum) or 18 (the others), an input as of it.

use crate::error::Result;
use crate::ir::Dim;
use crate::ops::rules::{Listed, add_dims, attribute_to_input, axis_mask, int, listed, mul_dims, output, vector};
use crate::ops::spec::{ChannelRole, InferContext, Inferred, OpSpec, Schema, Upgrade, op};

/// One value per group of elements along some axes.
pub struct Reduction;

fn axes_input_since(cx: &InferContext) -> i64 {
    if &*cx.node.op.op_type == "ReduceSum" { 13 } else { 18 }
}

impl OpSpec for Reduction {
    fn schemas(&self) -> &'static [Schema] {
        &const {
            [
                op("ReduceMean", &[1, 11, 13, 18]),
                op("ReduceSum", &[1, 11, 13]),
                op("ReduceMax", &[1, 11, 12, 13, 18, 20]),
                op("ReduceMin", &[1, 11, 12, 13, 18, 20]),
                op("ReduceProd", &[1, 11, 13, 18]),
                op("ReduceL1", &[1, 11, 13, 18]),
                op("ReduceL2", &[1, 11, 13, 18]),
                op("ReduceSumSquare", &[1, 11, 13, 18]),
                op("ReduceLogSum", &[1, 11, 13, 18]),
                op("ReduceLogSumExp", &[1, 11, 13, 18]),
            ]
        }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let mut out = output(cx.elem(0), shape(cx)?)?;
        if let [inferred] = &mut out[..] {
            inferred.data = data(cx);
        }
        Ok(out)
    }

    fn channels(&self, cx: &InferContext, axis: usize) -> ChannelRole {
        let homogeneous = matches!(&*cx.node.op.op_type, "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin");
        let (Some(shape), Ok(Listed::Known(axes))) = (cx.shape(0), listed(cx, "axes", 1, axes_input_since(cx))) else {
            return ChannelRole::Barrier;
        };
        let Ok(mask) = axis_mask(&axes, shape.len()) else { return ChannelRole::Barrier };
        // What is before the channels stays, so that their axis does.
        let behind = !axes.is_empty() && mask.iter().take(axis + 1).all(|gone| !gone);
        if homogeneous && behind { ChannelRole::same(axis) } else { ChannelRole::Barrier }
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        let since = axes_input_since(cx);
        if cx.opset < since && to >= since { attribute_to_input(cx, "axes", 1) } else { Upgrade::Same }
    }
}

fn shape(cx: &InferContext) -> Result<Option<Vec<Dim>>> {
    let keep = int(cx, "keepdims", 1)? != 0;
    let Some(shape) = cx.shape(0) else { return Ok(None) };
    let mask = match listed(cx, "axes", 1, axes_input_since(cx))? {
        Listed::Unknown if keep => return Ok(Some(vec![Dim::Unknown; shape.len()])),
        Listed::Unknown => return Ok(None),
        Listed::Known(axes) if !axes.is_empty() => axis_mask(&axes, shape.len())?,
        // No axes: all of them, unless the node says otherwise.
        _ => vec![int(cx, "noop_with_empty_axes", 0)? == 0; shape.len()],
    };
    Ok(Some(reduced(shape, &mask, keep)))
}

/// The shape with the masked axes removed, or of size 1.
pub fn reduced(shape: &[Dim], mask: &[bool], keep: bool) -> Vec<Dim> {
    let sizes = shape.iter().zip(mask).filter(|(_, gone)| keep || !**gone);
    sizes.map(|(d, &gone)| if gone { Dim::Known(1) } else { d.clone() }).collect()
}

/// Shape arithmetic: a vector of sizes reduced to one number.
fn data(cx: &InferContext) -> Option<Vec<Dim>> {
    let [_] = cx.shape(0)? else { return None };
    let over_all = match listed(cx, "axes", 1, axes_input_since(cx)).ok()? {
        Listed::Known(axes) if !axes.is_empty() => true,
        Listed::Unknown => false,
        _ => int(cx, "noop_with_empty_axes", 0).ok()? == 0,
    };
    if !over_all || !cx.elem(0)?.is_int() {
        return None;
    }
    let sizes = vector(cx, 0)?;
    let reduced = match &*cx.node.op.op_type {
        "ReduceProd" => sizes.iter().fold(Dim::Known(1), |a, b| mul_dims(&a, b)),
        "ReduceSum" => sizes.iter().fold(Dim::Known(0), |a, b| add_dims(&a, b)),
        _ => return None,
    };
    Some(vec![reduced])
}
