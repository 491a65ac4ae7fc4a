//! Comparisons and boolean connectives: boolean results with numpy's broadcasting.

use crate::error::Result;
use crate::ir::{DType, Dim};
use crate::ops::axes::{AxisLinks, LinkContext, broadcast_links};
use crate::ops::legacy::broadcast_attributes;
use crate::ops::rules::{broadcast_inputs, output, vector};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, Upgrade, op};

/// Two inputs, a boolean output of their broadcast shape.
pub struct Compare;

impl OpSpec for Compare {
    fn schemas(&self) -> &'static [Schema] {
        &const {
            [
                op("Equal", &[1, 7, 11, 13, 19]),
                op("Less", &[1, 7, 9, 13]),
                op("LessOrEqual", &[12, 16]),
                op("Greater", &[1, 7, 9, 13]),
                op("GreaterOrEqual", &[12, 16]),
                op("And", &[1, 7]),
                op("Or", &[1, 7]),
                op("Xor", &[1, 7]),
            ]
        }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        if cx.opset < 7 {
            return output(Some(DType::Bool), cx.shape(0).map(<[Dim]>::to_vec));
        }
        let mut out = output(Some(DType::Bool), broadcast_inputs(cx, 0..2)?)?;
        if let [inferred] = &mut out[..] {
            inferred.data = data(cx);
        }
        Ok(out)
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        if cx.opset < 7 && to >= 7 { broadcast_attributes(cx, to) } else { Upgrade::Same }
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        broadcast_links(cx, 0..cx.cx.inputs.len())
    }
}

/// Equality of shapes, which decides what `Where` picks in exported `Expand`s.
fn data(cx: &InferContext) -> Option<Vec<Dim>> {
    if &*cx.node.op.op_type != "Equal" || !cx.elem(0)?.is_int() {
        return None;
    }
    let (a, b) = (vector(cx, 0)?, vector(cx, 1)?);
    if a.len() != b.len() {
        return None;
    }
    let equal = |(x, y): (&Dim, &Dim)| match (x, y) {
        (Dim::Known(x), Dim::Known(y)) => Dim::Known((x == y).into()),
        // A symbol is a size: never negative, equal to itself.
        (Dim::Known(n), Dim::Sym(_)) | (Dim::Sym(_), Dim::Known(n)) if *n < 0 => Dim::Known(0),
        (Dim::Sym(x), Dim::Sym(y)) if x == y => Dim::Known(1),
        _ => Dim::Unknown,
    };
    Some(a.iter().zip(&b).map(equal).collect())
}
