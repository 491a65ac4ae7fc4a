//! Transpose.

use crate::error::{Error, Result};
use crate::ops::rules::{axis_mask, ints, is_f32, output};
use crate::ops::spec::{ChannelRole, InferContext, Inferred, OpSpec, QuantRole, Schema, op};

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

    fn channels(&self, cx: &InferContext, axis: usize) -> ChannelRole {
        let to = match (ints(cx, "perm"), cx.shape(0)) {
            (Ok(Some(perm)), _) => perm.iter().position(|&a| usize::try_from(a) == Ok(axis)),
            (Ok(None), Some(shape)) => shape.len().checked_sub(axis + 1),
            _ => None,
        };
        to.map_or(ChannelRole::Barrier, |axis| ChannelRole::Passes { inputs: vec![0], axis, repeat: 1 })
    }
}
