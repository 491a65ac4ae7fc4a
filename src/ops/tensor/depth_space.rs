//! DepthToSpace and SpaceToDepth.

use crate::error::{Error, Result};
use crate::ir::Dim;
use crate::math::{Array, View};
use crate::ops::axes::{AxisLinks, AxisMap, LinkContext, input, output as out};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
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

    fn gradient(&self, _cx: &InferContext) -> Option<Rule> {
        rule!(forward, backward)
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

/// The six axes that the input is made of, and the order in which the output has them.
fn axes(cx: &InferContext, dims: &[usize]) -> Result<([usize; 6], [usize; 6])> {
    let b = int(cx, "blocksize", 1)? as usize;
    let [n, c, h, w] = [0, 1, 2, 3].map(|k| dims[k]);
    Ok(match &*cx.node.op.op_type {
        "SpaceToDepth" if cx.node.string("mode").is_none_or(|m| m == "DCR") => {
            ([n, c, h / b, b, w / b, b], [0, 3, 5, 1, 2, 4])
        }
        "SpaceToDepth" => ([n, c, h / b, b, w / b, b], [0, 1, 3, 5, 2, 4]),
        _ if cx.node.string("mode").is_none_or(|m| m == "DCR") => ([n, b, b, c / (b * b), h, w], [0, 3, 4, 1, 5, 2]),
        _ => ([n, c / (b * b), b, b, h, w], [0, 1, 4, 2, 5, 3]),
    })
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let x = f.float(0)?;
    let (parts, order) = axes(f.cx, x.dims())?;
    Ok(Computed::one(Array::new(&f.shape()?, View::dense(&parts).permuted(&order).read(x.data()))))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let (x, dy) = (b.float(0)?, b.grad()?);
    let (parts, order) = axes(b.cx, x.dims())?;
    let mut dx = Array::zeros(x.dims());
    View::dense(&parts).permuted(&order).add_to(dx.data_mut(), dy.data());
    Ok(b.first(dx))
}
