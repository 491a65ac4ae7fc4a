//! Compress.

use crate::error::Result;
use crate::ir::Dim;
use crate::ops::rules::{axis, int, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Selects the slices along an axis, or the elements, where a condition holds.
pub struct Compress;

impl OpSpec for Compress {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Compress", &[9, 11])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let Some(shape) = cx.shape(0) else { return output(cx.elem(0), None) };
        if cx.node.attribute("axis").is_none() {
            return output(cx.elem(0), Some(vec![Dim::Unknown]));
        }
        let mut selected = shape.to_vec();
        selected[axis(int(cx, "axis", 0)?, shape.len())?] = Dim::Unknown;
        output(cx.elem(0), Some(selected))
    }
}
