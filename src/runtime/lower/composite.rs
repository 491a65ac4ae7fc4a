//! ONNX Runtime's quantized elementwise operators (domain com.microsoft) as dequantize, compute, quantize.
//!
//! That is their definition; ONNX Runtime computes some of them with folded constants, which can differ by one step where
//! a result lies on a rounding tie.

use super::super::kernels::{DEQUANTIZE, QUANTIZE};
use super::emit::Emit;
use crate::error::{Error, Result};
use crate::ir::{AttributeValue, Graph, NodeId, ValueId};

/// One operator: name, the float operator, the attributes that pass on, and how its inputs are arranged.
struct Row(&'static str, &'static str, &'static [&'static str], Form);

#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero.
    Binary,
    /// x, x_scale, x_zero, y_scale, y_zero.
    Unary,
    /// y_scale, y_zero, then a, a_scale, a_zero for each.
    Concat,
    /// condition, a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero.
    Where,
}

const TABLE: &[Row] = &[
    Row("QLinearAdd", "Add", &[], Form::Binary),
    Row("QLinearMul", "Mul", &[], Form::Binary),
    Row("QLinearSigmoid", "Sigmoid", &[], Form::Unary),
    Row("QLinearLeakyRelu", "LeakyRelu", &["alpha"], Form::Unary),
    Row("QLinearSoftmax", "Softmax", &["axis"], Form::Unary),
    Row("QLinearGlobalAveragePool", "GlobalAveragePool", &[], Form::Unary),
    Row(
        "QLinearAveragePool",
        "AveragePool",
        &["auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides"],
        Form::Unary,
    ),
    Row("QLinearReduceMean", "ReduceMean", &["axes", "keepdims"], Form::Unary),
    Row("QLinearConcat", "Concat", &["axis"], Form::Concat),
    Row("QLinearWhere", "Where", &[], Form::Where),
];

/// Whether [`rewrite`] knows the operator.
pub(super) fn knows(op_type: &str) -> bool {
    TABLE.iter().any(|row| row.0 == op_type)
}

/// Rewrites the node, whose operator [`knows`] knows.
pub(super) fn rewrite(graph: &mut Graph, id: NodeId) -> Result<()> {
    let node = graph.node(id);
    let row = TABLE.iter().find(|row| row.0 == &*node.op.op_type);
    let Row(_, op, passed, form) = row.ok_or_else(|| Error::internal("an operator that is not in the table"))?;
    if node.int("channels_last").unwrap_or(0) != 0 {
        return Err(Error::unsupported("channels_last"));
    }
    let attributes: Vec<(&str, AttributeValue)> =
        passed.iter().filter_map(|&k| Some((k, node.attribute(k)?.clone()))).collect();
    let v = graph.node_inputs(id);
    let at = |k: usize| v.get(k).copied().flatten();
    let (operands, y) = match form {
        Form::Unary => (vec![0], 3),
        Form::Binary => (vec![0, 3], 6),
        Form::Where => (vec![1, 4], 7),
        Form::Concat => ((2..v.len()).step_by(3).collect(), 0),
    };
    let mut emit = Emit { graph, node: id };
    let mut inputs: Vec<Option<ValueId>> = if *form == Form::Where { vec![at(0)] } else { vec![] };
    for k in operands {
        inputs.push(Some(emit.node(DEQUANTIZE, &[at(k), at(k + 1), at(k + 2)], &[])?));
    }
    let result = emit.node(op, &inputs, &attributes)?;
    emit.become_op(QUANTIZE, &[Some(result), at(y), at(y + 1)], &[])
}
