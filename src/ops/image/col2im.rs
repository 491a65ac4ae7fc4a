//! Col2Im.

use crate::error::Result;
use crate::ir::Dim;
use crate::ops::rules::{div_dim, output, product, requested_shape, size};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Adds columns of blocks `[n, channels * block, columns]` up to images `[n, channels, ...]`.
pub struct Col2Im;

impl OpSpec for Col2Im {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Col2Im", &[18])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let (Some(image), Some(block)) = (requested_shape(cx, 1)?, requested_shape(cx, 2)?) else {
            return output(cx.elem(0), None);
        };
        let channels = match product(&block) {
            Dim::Known(b) => div_dim(&size(cx, 0, 1), b),
            _ => Dim::Unknown,
        };
        let shape = [size(cx, 0, 0), channels].into_iter().chain(image).collect();
        output(cx.elem(0), Some(shape))
    }
}
