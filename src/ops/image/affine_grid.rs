//! AffineGrid.

use crate::error::{Error, Result};
use crate::ir::Dim;
use crate::ops::rules::{output, requested_shape};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Sampling positions of affine maps: `[n, spatial..., 2 or 3]`.
pub struct AffineGrid;

impl OpSpec for AffineGrid {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("AffineGrid", &[20])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let Some(target) = requested_shape(cx, 1)? else { return output(cx.elem(0), None) };
        let [batch, _, spatial @ ..] = &target[..] else {
            return Err(Error::invalid(format!("its size has {} elements, expected 4 or 5", target.len())));
        };
        let coordinates = Dim::Known(spatial.len() as i64);
        output(cx.elem(0), Some([std::slice::from_ref(batch), spatial, &[coordinates]].concat()))
    }
}
