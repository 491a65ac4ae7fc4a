//! Functions of one element: the output has the input's type.

use crate::error::Result;
use crate::ir::AttributeValue;
use crate::ops::rules::{changed, is_f32, same_as};
use crate::ops::spec::{ChannelRole, InferContext, Inferred, OpSpec, QuantRole, Schema, Upgrade, op};

/// One input, one output, equal types.
pub struct Unary;

impl OpSpec for Unary {
    fn schemas(&self) -> &'static [Schema] {
        &const {
            [
                op("Abs", &[1, 6, 13]),
                op("Acos", &[7, 22]),
                op("Acosh", &[9, 22]),
                op("Asin", &[7, 22]),
                op("Asinh", &[9, 22]),
                op("Atan", &[7, 22]),
                op("Atanh", &[9, 22]),
                op("BitwiseNot", &[18]),
                op("Ceil", &[1, 6, 13]),
                op("Celu", &[12]),
                op("Cos", &[7, 22]),
                op("Cosh", &[9, 22]),
                op("Elu", &[1, 6, 22]),
                op("Erf", &[9, 13]),
                op("Exp", &[1, 6, 13]),
                op("Floor", &[1, 6, 13]),
                op("Gelu", &[20]),
                op("HardSigmoid", &[1, 6, 22]),
                op("HardSwish", &[14, 22]),
                op("LeakyRelu", &[1, 6, 16]),
                op("Log", &[1, 6, 13]),
                op("Mish", &[18, 22]),
                op("Neg", &[1, 6, 13]),
                op("Not", &[1]),
                op("Reciprocal", &[1, 6, 13]),
                op("Round", &[11, 22]),
                op("Selu", &[1, 6, 22]),
                op("Shrink", &[9]),
                op("Sigmoid", &[1, 6, 13]),
                op("Sign", &[9, 13]),
                op("Sin", &[7, 22]),
                op("Sinh", &[9, 22]),
                op("Softplus", &[1, 22]),
                op("Softsign", &[1, 22]),
                op("Sqrt", &[1, 6, 13]),
                op("Swish", &[24]),
                op("Tan", &[7, 22]),
                op("Tanh", &[1, 6, 13]),
                op("ThresholdedRelu", &[10, 22]),
            ]
        }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        same_as(cx, 0)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        match &*cx.node.op.op_type {
            // Those with a kernel in ONNX Runtime.
            "Sigmoid" | "LeakyRelu" if is_f32(cx, 0) => QuantRole::Elementwise { inputs: vec![0] },
            _ => QuantRole::Opaque,
        }
    }

    fn channels(&self, cx: &InferContext, axis: usize) -> ChannelRole {
        // Linear on either side of zero.
        match &*cx.node.op.op_type {
            "LeakyRelu" | "Abs" | "Neg" => ChannelRole::same(axis),
            _ => ChannelRole::Barrier,
        }
    }

    fn upgrade(&self, cx: &InferContext, _to: i64) -> Upgrade {
        if cx.opset >= 6 || &*cx.node.op.op_type != "Selu" {
            return Upgrade::Same;
        }
        // The defaults before operator set 6 had fewer digits.
        let mut node = cx.node.clone();
        for (name, value) in [("alpha", 1.6732), ("gamma", 1.0507)] {
            if node.attribute(name).is_none() {
                node.set(name, AttributeValue::Float(value));
            }
        }
        changed(node)
    }
}
