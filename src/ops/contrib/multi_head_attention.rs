//! MultiHeadAttention and GroupQueryAttention of ONNX Runtime.

use crate::error::Result;
use crate::ir::Dim;
use crate::ops::rules::{int, mul_dims, size};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, contrib};

/// `[batch, steps, heads * size]` from queries of the same form, or from all three in one tensor.
pub struct MultiHeadAttention;

impl OpSpec for MultiHeadAttention {
    fn schemas(&self) -> &'static [Schema] {
        &const { [contrib("MultiHeadAttention"), contrib("GroupQueryAttention")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let grouped = &*cx.node.op.op_type == "GroupQueryAttention";
        let heads = int(cx, "num_heads", 0)?;
        let width = match cx.shape(0) {
            Some([_, _, packed]) if grouped && !cx.present(1) => {
                packed_width(packed, heads, int(cx, "kv_num_heads", 0)?)
            }
            Some([_, _, width]) if grouped => width.clone(),
            // Values may be wider than queries.
            Some([_, _, _]) => match cx.shape(2) {
                Some([_, _, width]) => width.clone(),
                Some([_, heads, _, size]) => mul_dims(heads, size),
                _ => Dim::Unknown,
            },
            Some([_, _, heads, _, size]) => mul_dims(heads, size),
            _ => return Ok(vec![Inferred::tensor(cx.elem(0), None)]),
        };
        Ok(vec![Inferred::tensor(cx.elem(0), Some(vec![size(cx, 0, 0), size(cx, 0, 1), width]))])
    }
}

/// Width of the queries among queries, keys and values side by side.
fn packed_width(packed: &Dim, heads: i64, key_heads: i64) -> Dim {
    let all = key_heads.checked_mul(2).and_then(|k| k.checked_add(heads)).filter(|_| heads > 0 && key_heads > 0);
    match (packed, all) {
        (Dim::Known(n), Some(all)) if n % all == 0 => (n / all).checked_mul(heads).map_or(Dim::Unknown, Dim::Known),
        _ => Dim::Unknown,
    }
}
