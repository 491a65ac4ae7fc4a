//! CenterCropPad.

use crate::error::{Error, Result};
use crate::ir::Dim;
use crate::ops::rules::{axis, ints, output, requested_shape};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Crops or pads around the centre to the requested sizes.
pub struct CenterCropPad;

impl OpSpec for CenterCropPad {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("CenterCropPad", &[18])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let Some(shape) = cx.shape(0) else { return output(cx.elem(0), None) };
        let all: Vec<i64> = (0..shape.len() as i64).collect();
        let axes = ints(cx, "axes")?.unwrap_or(&all);
        let Some(sizes) = requested_shape(cx, 1)? else {
            return output(cx.elem(0), Some(vec![Dim::Unknown; shape.len()]));
        };
        if sizes.len() != axes.len() {
            return Err(Error::invalid(format!("{} sizes for {} axes", sizes.len(), axes.len())));
        }
        let mut cropped = shape.to_vec();
        for (&a, size) in axes.iter().zip(sizes) {
            cropped[axis(a, shape.len())?] = size;
        }
        output(cx.elem(0), Some(cropped))
    }
}
