//! ONNX Runtime's quantized functions of single elements, and QLinearSoftmax, whose shape rule is the same.

use crate::error::Result;
use crate::ops::rules::{broadcast_inputs, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, contrib};

/// The output has the element type of its zero point and the broadcast shape of the data inputs.
pub struct QLinearElementwise;

/// (op, slots of the data inputs, slot of the output's zero point)
const TABLE: &[(&str, &[usize], usize)] = &[
    ("QLinearAdd", &[0, 3], 7),
    ("QLinearMul", &[0, 3], 7),
    ("QLinearLeakyRelu", &[0], 4),
    ("QLinearSigmoid", &[0], 4),
    ("QLinearSoftmax", &[0], 4),
    ("QLinearWhere", &[0, 1, 4], 8),
];

impl OpSpec for QLinearElementwise {
    fn schemas(&self) -> &'static [Schema] {
        &const {
            [
                contrib("QLinearAdd"),
                contrib("QLinearMul"),
                contrib("QLinearLeakyRelu"),
                contrib("QLinearSigmoid"),
                contrib("QLinearSoftmax"),
                contrib("QLinearWhere"),
            ]
        }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let row = TABLE.iter().find(|row| row.0 == &*cx.node.op.op_type);
        let Some((op, data, zero_point)) = row else { return Ok(vec![]) };
        // An absent zero point is 0 of the first data input's type (`Where` has a condition there).
        let first = if *op == "QLinearWhere" { 1 } else { 0 };
        let elem = cx.elem(if cx.present(*zero_point) { *zero_point } else { first });
        output(elem, broadcast_inputs(cx, data.iter().copied())?)
    }
}
