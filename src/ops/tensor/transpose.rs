//! Transpose.

use crate::error::{Error, Result};
use crate::ops::axes::{self, AxisLinks, LinkContext, input};
use crate::ops::rules::{axis_mask, ints, is_f32, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, QuantRole, Schema, op};

/// Permutes the axes.
pub struct Transpose;

impl OpSpec for Transpose {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Transpose", &[1, 13, 21, 23, 24, 25])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let Some(shape) = cx.shape(0) else { return output(cx.elem(0), None) };
        let permuted = match ints(cx, "perm")? {
            None => shape.iter().rev().cloned().collect(),
            Some(perm) => {
                axis_mask(perm, shape.len())?;
                if perm.len() != shape.len() || perm.iter().any(|&a| a < 0) {
                    let rank = shape.len();
                    return Err(Error::invalid(format!("perm {perm:?} does not permute the axes of rank {rank}")));
                }
                perm.iter().map(|&a| shape[a as usize].clone()).collect()
            }
        };
        output(cx.elem(0), Some(permuted))
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if is_f32(cx, 0) { QuantRole::PassThrough { input: 0 } } else { QuantRole::Opaque }
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let rank = cx.rank(0)?;
        let mut links = AxisLinks::default();
        match ints(cx.cx, "perm").ok()? {
            None => (0..rank).for_each(|k| links.same(input(0, rank - 1 - k), axes::output(0, k))),
            Some(perm) => {
                for (k, &from) in perm.iter().enumerate() {
                    links.same(input(0, usize::try_from(from).ok()?), axes::output(0, k));
                }
            }
        }
        Some(links)
    }
}
