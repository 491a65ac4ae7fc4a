//! FusedMatMul of ONNX Runtime.

use crate::error::Result;
use crate::ops::rules::{broadcast, int, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, contrib};

/// A scaled product of matrices, each transposed or not.
pub struct FusedMatMul;

impl OpSpec for FusedMatMul {
    fn schemas(&self) -> &'static [Schema] {
        &const { [contrib("FusedMatMul")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let batches = int(cx, "transBatchA", 0)? != 0 || int(cx, "transBatchB", 0)? != 0;
        let (Some(a), Some(b)) = (cx.shape(0), cx.shape(1)) else { return output(cx.elem(0), None) };
        let ([a_batch @ .., a0, a1], [b_batch @ .., b0, b1], false) = (a, b, batches) else {
            return output(cx.elem(0), None);
        };
        let rows = if int(cx, "transA", 0)? != 0 { a1 } else { a0 };
        let columns = if int(cx, "transB", 0)? != 0 { b0 } else { b1 };
        let mut shape = broadcast(a_batch, b_batch)?;
        shape.extend([rows.clone(), columns.clone()]);
        output(cx.elem(0), Some(shape))
    }
}
