//! What tract runs faithfully. Whatever is not on this list is refused by name.
//!
//! The list is measured: `tests/node_cases.rs` runs the ONNX standard's operator cases and fails if one that is not refused
//! is wrong.

use super::super::kernels;
use super::super::program::{fed_type, interprets};
use super::super::tensor::datum_type;
use crate::ir::{DType, Graph, MICROSOFT, Model, Node, NodeId};

/// Operators of the default domain that are right on all of their cases, with whatever attributes.
const RIGHT: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "ArgMax",
    "ArgMin",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "AveragePool",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "BlackmanWindow",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "Cos",
    "Cosh",
    "CumSum",
    "DFT",
    "DepthToSpace",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "DynamicQuantizeLinear",
    "Einsum",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Expand",
    "EyeLike",
    "Flatten",
    "Floor",
    "Gather",
    "GatherElements",
    "GatherND",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Greater",
    "GreaterOrEqual",
    "GridSample",
    "GroupNormalization",
    "HammingWindow",
    "HannWindow",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "Identity",
    "InstanceNormalization",
    "IsInf",
    "IsNaN",
    "LRN",
    "LayerNormalization",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "MatMul",
    "MatMulInteger",
    "Max",
    "MaxPool",
    "Mean",
    "MeanVarianceNormalization",
    "MelWeightMatrix",
    "Min",
    "Mish",
    "Mod",
    "Mul",
    "Neg",
    "NonMaxSuppression",
    "NonZero",
    "Not",
    "Or",
    "PRelu",
    "Pow",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
    "RMSNormalization",
    "Range",
    "Reciprocal",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Resize",
    "RotaryEmbedding",
    "Round",
    "STFT",
    "Scatter",
    "ScatterElements",
    "ScatterND",
    "Selu",
    "Shape",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Size",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Tile",
    "TopK",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Where",
    "Xor",
];

/// Operators of `com.microsoft` beside the elementwise ones of [`super::composite`].
const RIGHT_MICROSOFT: &[&str] = &["QuantizeLinear", "DequantizeLinear", "QGemm"];

/// Attributes of the recurrent operators that tract reads, or that change nothing.
const RECURRENT: &[&str] = &["direction", "hidden_size", "layout", "linear_before_reset"];

/// Every node that cannot run, one line each, as `tract cannot run node "x" (Loop): not in tract`; empty where none is known.
/// What depends on shapes or on fed values shows only when the model runs.
pub fn unsupported(model: &Model) -> Vec<String> {
    match super::prepared(model) {
        Ok(copy) => findings(&copy),
        Err(e) => vec![e.to_string()],
    }
}

/// [`unsupported`] of the runtime's own copy of a model.
pub(in crate::runtime) fn findings(model: &Model) -> Vec<String> {
    let mut findings = vec![];
    let opset = model.default_opset();
    if opset < 7 && model.graph.nodes().any(|id| model.graph.node(id).op.domain.is_empty()) {
        findings.push(format!("tract cannot run operator set {opset}: before 7, broadcasting was another"));
    }
    for v in model.graph.required_inputs() {
        match fed_type(model.graph.ty(v)) {
            Some(t) if datum_type(t).is_some() => {}
            Some(t) => findings.push(format!("tract cannot run input \"{}\": no tensors of {t}", model.graph.name(v))),
            None => findings.push(format!("tract cannot run input \"{}\": not a tensor", model.graph.name(v))),
        }
    }
    check(&model.graph, &mut findings);
    findings
}

fn check(graph: &Graph, findings: &mut Vec<String>) {
    let Ok(order) = graph.order() else { return findings.push("the graph has a cycle".into()) };
    for id in order {
        let node = graph.node(id);
        let reason = if interprets(node) { None } else { reason(graph, id) };
        if let Some(reason) = reason {
            findings.push(format!("tract cannot run {}: {reason}", node.label()));
        }
        for body in node.bodies() {
            check(body, findings);
        }
    }
}

/// Why the node cannot run, if it cannot.
fn reason(graph: &Graph, id: NodeId) -> Option<String> {
    let node = graph.node(id);
    let op = &*node.op.op_type;
    let missing = || Some("not in tract".to_string());
    match &*node.op.domain {
        "" => {}
        MICROSOFT if RIGHT_MICROSOFT.contains(&op) || super::composite::knows(op) => return None,
        "ai.onnx.ml" if op == "ArrayFeatureExtractor" => return None,
        _ => return missing(),
    }
    match op {
        "LSTM" | "GRU" | "RNN" => recurrent(node),
        "Resize" => stretched(graph, id),
        "Cast" => {
            let to = node.int("to").and_then(|t| i32::try_from(t).ok()).and_then(DType::from_onnx);
            let to = to.filter(|t| datum_type(*t).is_none())?;
            Some(format!("no tensors of {to}"))
        }
        _ if RIGHT.contains(&op) || kernels::private(op).is_some() => None,
        _ => missing(),
    }
}

/// tract reads neither other activations, nor clipping, nor a coupled forget gate, and runs `reverse` forward.
fn recurrent(node: &Node) -> Option<String> {
    let default: &[&str] = match &*node.op.op_type {
        "LSTM" => &["Sigmoid", "Tanh", "Tanh"],
        "GRU" => &["Sigmoid", "Tanh"],
        _ => &["Tanh"],
    };
    if node.string("direction").unwrap_or("forward") == "reverse" {
        return Some("direction=reverse".into());
    }
    for a in &node.attributes {
        let known = match (&*a.name, &a.value) {
            ("activations", crate::ir::AttributeValue::Strings(s)) => {
                s.iter().zip(default.iter().cycle()).all(|(s, d)| s == d.as_bytes())
                    && s.len().is_multiple_of(default.len())
            }
            ("input_forget", crate::ir::AttributeValue::Int(0)) => true,
            (name, _) => RECURRENT.contains(&name),
        };
        if !known {
            return Some(format!("its attribute {}", a.name));
        }
    }
    None
}

/// `align_corners` by scales whose output sizes are not whole numbers: tract forgets to round them down.
fn stretched(graph: &Graph, id: NodeId) -> Option<String> {
    let node = graph.node(id);
    if node.string("coordinate_transformation_mode") != Some("align_corners") {
        return None;
    }
    let scales = graph.input(id, 2).and_then(|v| graph.constant(v)).filter(|t| !t.is_empty())?;
    let whole = scales.to_f32().is_ok_and(|s| s.iter().all(|s| s.fract() == 0.0));
    (!whole).then(|| "align_corners with fractional scales".into())
}
