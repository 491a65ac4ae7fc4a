//! What tract runs faithfully. Whatever is not on this list is refused by name.
//!
//! The list is measured: `tests/node_cases.rs` runs the ONNX standard's operator cases and fails if one that is not refused
//! is wrong.

use super::super::kernels;
use super::super::program::{fed_type, interprets};
use super::super::tensor::datum_type;
use crate::ir::{DType, Graph, MICROSOFT, Model, Node, NodeId, OpId};

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
    "Cos",
    "Cosh",
    "CumSum",
    "DFT",
    "DepthToSpace",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "DynamicQuantizeLinear",
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
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Greater",
    "GreaterOrEqual",
    "GroupNormalization",
    "HammingWindow",
    "HannWindow",
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
    "LpNormalization",
    "MatMul",
    "MatMulInteger",
    "Mean",
    "MeanVarianceNormalization",
    "MelWeightMatrix",
    "Mish",
    "Mul",
    "Neg",
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
    "ReduceMean",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Reshape",
    "RotaryEmbedding",
    "Round",
    "STFT",
    "Scatter",
    "ScatterElements",
    "Selu",
    "Shape",
    "Shrink",
    "Sign",
    "Sin",
    "Sinh",
    "Size",
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
    "ThresholdedRelu",
    "Tile",
    "TopK",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Where",
    "Xor",
];

/// Operators that mean the same in every version.
const SAME_BEFORE_7: &[&str] = &["Not", "Identity", "Transpose", "Sqrt", "Exp", "Log", "Floor", "Ceil", "Abs", "Neg"];

/// Operators of `com.microsoft` beside the elementwise ones of [`super::composite`].
const RIGHT_MICROSOFT: &[&str] = &[
    "QuantizeLinear",
    "DequantizeLinear",
    "QGemm",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat",
];

/// Every node that cannot run, one line each, as `tract cannot run node "x" (Loop): not in tract`; empty where none is known.
/// What depends on shapes or on fed values shows only when the model runs.
pub fn unsupported(model: &Model) -> Vec<String> {
    match super::prepared(model) {
        Ok(copy) => findings(&copy),
        Err(e) => vec![e.to_string()],
    }
}

/// Whether a node of this operator without attributes and inputs is one that runs: in a model, its attributes may say
/// otherwise.
pub fn runs(op: &OpId) -> bool {
    let mut graph = Graph::default();
    match graph.add_node(Node::new(op.clone()), &[], &[]) {
        Ok(id) => interprets(graph.node(id)) || reason(&graph, id).is_none(),
        Err(_) => false,
    }
}

/// [`unsupported`] of the runtime's own copy of a model.
pub(in crate::runtime) fn findings(model: &Model) -> Vec<String> {
    let mut findings = vec![];
    let opset = model.default_opset();
    let old = |id: NodeId| {
        let op = &model.graph.node(id).op;
        op.domain.is_empty() && !SAME_BEFORE_7.contains(&&*op.op_type)
    };
    if opset < 7 && model.graph.nodes().any(old) {
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
        MICROSOFT if super::nbits::knows(op) => return super::nbits::reason(graph, id),
        MICROSOFT if RIGHT_MICROSOFT.contains(&op) || super::composite::knows(op) => return None,
        "ai.onnx.ml" if op == "ArrayFeatureExtractor" => return None,
        _ => return missing(),
    }
    match op {
        "AveragePool" | "MaxPool" => pooled(node),
        "GridSample" => sampled(node),
        "Resize" => resized(node),
        "Cast" => {
            let to = node.int("to").and_then(|t| i32::try_from(t).ok()).and_then(DType::from_onnx);
            let to = to.filter(|t| datum_type(*t).is_none())?;
            Some(format!("no tensors of {to}"))
        }
        _ if RIGHT.contains(&op) || kernels::private(op).is_some() => None,
        _ => missing(),
    }
}

/// Windows beyond the padding: ONNX Runtime and the specification count them differently.
fn pooled(node: &Node) -> Option<String> {
    let auto = node.string("auto_pad").unwrap_or("NOTSET");
    if auto != "NOTSET" && node.int("ceil_mode").unwrap_or(0) != 0 {
        return Some("ceil_mode with auto_pad".into());
    }
    let at = |name: &str, k: usize| node.ints(name).and_then(|v| v.get(k).copied()).unwrap_or(1);
    let kernel = node.ints("kernel_shape").unwrap_or(&[]);
    let negative = (0..kernel.len()).any(|k| (kernel[k] - 1).saturating_mul(at("dilations", k)) + 1 < at("strides", k));
    let single = kernel.iter().all(|&k| k == 1);
    (auto.starts_with("SAME_") && negative && !single).then(|| "strides beyond the window with auto_pad".into())
}

/// tract clamps coordinates where the specification clamps indices.
fn sampled(node: &Node) -> Option<String> {
    let cubic = node.string("mode").is_some_and(|m| m.ends_with("cubic"));
    (cubic && node.string("padding_mode") == Some("border")).then(|| "cubic with padding_mode=border".into())
}

/// Antialiasing is tract's, which is right about these coordinates only.
fn resized(node: &Node) -> Option<String> {
    let coordinates = node.string("coordinate_transformation_mode").unwrap_or("half_pixel");
    let plain = matches!(coordinates, "half_pixel" | "asymmetric");
    (!plain && node.int("antialias").unwrap_or(0) != 0).then(|| format!("antialias with {coordinates}"))
}
