//! The reductions: axes are an attribute before operator set 13 (ReduceSum) or 18 (the others), an input as of it.

use crate::error::Result;
use crate::ir::Dim;
use crate::ops::rules::{Listed, attribute_to_input, axis_mask, int, listed, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, Upgrade, op};

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
        output(cx.elem(0), shape(cx)?)
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
