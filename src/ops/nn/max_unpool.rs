//! MaxUnpool.

use crate::error::{Error, Result};
use crate::ir::Dim;
use crate::ops::rules::{ints, output, requested_shape};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};
use crate::ops::window::Window;

/// Puts pooled elements back to where they were.
pub struct MaxUnpool;

impl OpSpec for MaxUnpool {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("MaxUnpool", &[9, 11, 22])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let Some(shape) = cx.shape(0) else { return output(cx.elem(0), None) };
        if cx.present(2) {
            return output(cx.elem(0), requested_shape(cx, 2)?.or_else(|| Some(vec![Dim::Unknown; shape.len()])));
        }
        let kernel = ints(cx, "kernel_shape")?.unwrap_or_default();
        if kernel.len() + 2 != shape.len() {
            return Err(Error::invalid(format!("a kernel of {} axes for rank {}", kernel.len(), shape.len())));
        }
        let window = Window::read(cx, kernel.iter().copied().map(Dim::Known).collect())?;
        let mut restored = shape[..2].to_vec();
        for (i, size) in shape[2..].iter().enumerate() {
            restored.push(window.transposed(i, size, 0)?);
        }
        output(cx.elem(0), Some(restored))
    }
}
