//! DynamicQuantizeMatMul and MatMulIntegerToFloat of ONNX Runtime.

use crate::error::Result;
use crate::ir::Type;
use crate::ops::math::matmul::{matmul_macs, matmul_shape};
use crate::ops::rules::output;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, contrib};

/// Products in 8 bits with float results.
pub struct DynamicMatMul;

impl OpSpec for DynamicMatMul {
    fn schemas(&self) -> &'static [Schema] {
        &const { [contrib("DynamicQuantizeMatMul"), contrib("MatMulIntegerToFloat")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        // The second one's inputs are integers; the scale has the output's type.
        let elem = cx.elem(if &*cx.node.op.op_type == "DynamicQuantizeMatMul" { 0 } else { 2 });
        output(elem, matmul_shape(cx, 0, 1)?)
    }

    fn macs(&self, cx: &InferContext, outputs: &[Option<&Type>]) -> Option<u64> {
        matmul_macs(cx, 0, 1, outputs)
    }
}
