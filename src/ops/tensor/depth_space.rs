//! DepthToSpace and SpaceToDepth.

use crate::error::{Error, Result};
use crate::ir::Dim;
use crate::ops::axes::{AxisLinks, AxisMap, LinkContext, input, output as out};
use crate::ops::rules::{int, is_f32, mul_dims, output, string};
use crate::ops::spec::{InferContext, Inferred, OpSpec, QuantRole, Schema, op};

/// Moves blocks between the channel axis and the plane.
pub struct DepthSpace;

impl OpSpec for DepthSpace {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("DepthToSpace", &[1, 11, 13]), op("SpaceToDepth", &[1, 13])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let block = int(cx, "blocksize", 0)?;
        let Some(square) = block.checked_mul(block).filter(|_| block > 0) else {
            return Err(Error::invalid("attribute \"blocksize\" is missing or out of range"));
        };
        let shape = match cx.shape(0) {
            None => return output(cx.elem(0), None),
            Some([n, c, h, w]) => [n, c, h, w],
            Some(s) => return Err(Error::invalid(format!("input has rank {}, expected 4", s.len()))),
        };
        let [n, c, h, w] = shape;
        let (up, down) = (|d: &Dim, by: i64| mul_dims(d, &Dim::Known(by)), divided);
        let moved = if &*cx.node.op.op_type == "DepthToSpace" {
            vec![n.clone(), down(c, square)?, up(h, block), up(w, block)]
        } else {
            vec![n.clone(), up(c, square), down(h, block)?, down(w, block)?]
        };
        output(cx.elem(0), Some(moved))
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if is_f32(cx, 0) { QuantRole::PassThrough { input: 0 } } else { QuantRole::Opaque }
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let block = usize::try_from(int(cx.cx, "blocksize", 0).ok()?).ok()?;
        let mut links = AxisLinks::default();
        links.same(input(0, 0), out(0, 0));
        if &*cx.cx.node.op.op_type == "SpaceToDepth" {
            links.link(out(0, 1), input(0, 1), AxisMap::Stride { inner: 1 });
        } else {
            // Channels are (block, block, depth), or (depth, block, block) in mode CRD.
            let crd = matches!(string(cx.cx, "mode", "DCR"), Ok("CRD"));
            let inner = if crd { block.checked_mul(block).filter(|&n| n > 0)? } else { 1 };
            links.link(input(0, 1), out(0, 1), AxisMap::Stride { inner });
        }
        Some(links)
    }
}

fn divided(size: &Dim, by: i64) -> Result<Dim> {
    match size {
        d if by == 1 => Ok(d.clone()),
        Dim::Known(n) if n % by != 0 => Err(Error::invalid(format!("size {n} is not a multiple of {by}"))),
        Dim::Known(n) => Ok(Dim::Known(n / by)),
        _ => Ok(Dim::Unknown),
    }
}
