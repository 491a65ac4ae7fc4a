//! Attention and QAttention of ONNX Runtime, which project to queries, keys and values themselves.

use crate::error::{Error, Result};
use crate::ir::Dim;
use crate::ops::rules::{div_dim, ints, size};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, contrib};

/// `[batch, steps, width]`, where the weights `[in, 3 * width]` give the width.
pub struct Attention;

impl OpSpec for Attention {
    fn schemas(&self) -> &'static [Schema] {
        &const { [contrib("Attention"), contrib("QAttention")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let quantized = &*cx.node.op.op_type == "QAttention";
        let width = match ints(cx, "qkv_hidden_sizes")? {
            Some([_, _, values]) => Dim::Known(*values),
            Some(v) => return Err(Error::invalid(format!("{} hidden sizes, expected 3", v.len()))),
            None => div_dim(&size(cx, 1, 1), 3),
        };
        let elem = cx.elem(if quantized { 3 } else { 0 });
        Ok(vec![Inferred::tensor(elem, Some(vec![size(cx, 0, 0), size(cx, 0, 1), width]))])
    }
}
