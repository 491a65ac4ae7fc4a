//! Where.

use crate::error::Result;
use crate::ir::Dim;
use crate::ops::axes::{AxisLinks, LinkContext, broadcast_links};
use crate::ops::rules::{broadcast_inputs, is_f32, output, vector};
use crate::ops::spec::{InferContext, Inferred, OpSpec, QuantRole, Schema, op};

/// Picks each element from one of two inputs.
pub struct Where;

impl OpSpec for Where {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Where", &[9, 16])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let mut out = output(cx.elem(1).or(cx.elem(2)), broadcast_inputs(cx, 0..3)?)?;
        if let [inferred] = &mut out[..] {
            inferred.data = data(cx);
        }
        Ok(out)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if is_f32(cx, 1) { QuantRole::Elementwise { inputs: vec![1, 2] } } else { QuantRole::Opaque }
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        broadcast_links(cx, 0..cx.cx.inputs.len())
    }
}

fn data(cx: &InferContext) -> Option<Vec<Dim>> {
    if !cx.elem(1)?.is_int() {
        return None;
    }
    let (condition, yes, no) = (vector(cx, 0)?, vector(cx, 1)?, vector(cx, 2)?);
    if condition.len() != yes.len() || condition.len() != no.len() {
        return None;
    }
    let picked = condition.iter().zip(yes.iter().zip(&no)).map(|(c, (y, n))| match c {
        Dim::Known(0) => n.clone(),
        Dim::Known(_) => y.clone(),
        _ if y == n => y.clone(),
        _ => Dim::Unknown,
    });
    Some(picked.collect())
}
