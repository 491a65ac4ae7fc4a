//! MatMulNBits of ONNX Runtime.

use crate::error::{Error, Result};
use crate::ir::Dim;
use crate::ops::rules::{int, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, contrib};

/// A product with a weight of few bits in blocks, `[..., K]` to `[..., N]`.
pub struct MatMulNBits;

impl OpSpec for MatMulNBits {
    fn schemas(&self) -> &'static [Schema] {
        &const { [contrib("MatMulNBits")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let columns = int(cx, "N", 0)?;
        if columns < 1 {
            return Err(Error::invalid(format!("attribute \"N\" is {columns}")));
        }
        match cx.shape(0) {
            Some([rows @ .., _]) => output(cx.elem(0), Some([rows, &[Dim::Known(columns)]].concat())),
            _ => output(cx.elem(0), None),
        }
    }
}
