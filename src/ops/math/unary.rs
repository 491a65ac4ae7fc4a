//! Functions of one element: the output has the input's type.

use crate::error::Result;
use crate::ops::rules::{is_f32, same_as, without};
use crate::ops::spec::{InferContext, Inferred, OpKey, OpSpec, QuantRole, Upgrade, onnx};

/// One input, one output, equal types.
pub struct Unary;

impl OpSpec for Unary {
    fn keys(&self) -> &'static [OpKey] {
        &const {
            [
                onnx("Abs"),
                onnx("Acos"),
                onnx("Acosh"),
                onnx("Asin"),
                onnx("Asinh"),
                onnx("Atan"),
                onnx("Atanh"),
                onnx("BitwiseNot"),
                onnx("Ceil"),
                onnx("Celu"),
                onnx("Cos"),
                onnx("Cosh"),
                onnx("Elu"),
                onnx("Erf"),
                onnx("Exp"),
                onnx("Floor"),
                onnx("Gelu"),
                onnx("HardSigmoid"),
                onnx("HardSwish"),
                onnx("LeakyRelu"),
                onnx("Log"),
                onnx("Mish"),
                onnx("Neg"),
                onnx("Not"),
                onnx("Reciprocal"),
                onnx("Round"),
                onnx("Selu"),
                onnx("Shrink"),
                onnx("Sigmoid"),
                onnx("Sign"),
                onnx("Sin"),
                onnx("Sinh"),
                onnx("Softplus"),
                onnx("Softsign"),
                onnx("Sqrt"),
                onnx("Swish"),
                onnx("Tan"),
                onnx("Tanh"),
                onnx("ThresholdedRelu"),
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

    fn upgrade(&self, cx: &InferContext, _to: i64) -> Upgrade {
        if cx.opset < 6 && &*cx.node.op.op_type == "Selu" {
            return Upgrade::Impossible("its defaults before operator set 6 differ".into());
        }
        // A hint to reuse memory, dropped in 6.
        if cx.node.attribute("consumed_inputs").is_some() {
            let node = Box::new(without(cx.node, &["consumed_inputs"]));
            return Upgrade::Changed { node, new_inputs: vec![] };
        }
        Upgrade::Same
    }
}
