//! EyeLike.

use crate::error::Result;
use crate::ir::Dim;
use crate::ops::rules::{elem_attribute, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Ones on a diagonal of a matrix of the input's shape.
pub struct EyeLike;

impl OpSpec for EyeLike {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("EyeLike", &[9, 22])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(elem_attribute(cx, "dtype")?.or(cx.elem(0)), cx.shape(0).map(<[Dim]>::to_vec))
    }
}
