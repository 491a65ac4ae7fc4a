//! From the IR to what tract runs faithfully.

mod allow;
mod composite;
mod copy;
mod dynamic_lstm;
mod emit;
mod fold;
mod half;
mod integer;
mod nbits;
mod plain;
mod repair;

pub(super) use allow::findings;
pub use allow::{runs, unsupported};
pub(super) use copy::prepared;
pub(super) use half::{has_half, to_single};

use super::program::Scope;
use super::tensor::tract_error;
use super::{kernels, ranked};
use crate::error::{Context, Error, Result};
use crate::io::model_to_proto;
use crate::ir::{DType, Graph, MICROSOFT, Model, NodeId, Tensor, TensorData, TensorType, Type};
use prost::Message;
use std::collections::HashSet;
use tract_onnx::prelude::{Framework, InferenceModel};

/// tract's model of a graph without control flow.
///
/// # Errors
/// Operators that tract cannot run faithfully, by name.
pub(super) fn lower(mut graph: Graph, scope: &Scope) -> Result<InferenceModel> {
    prepare(&mut graph)?;
    rewrite(&mut graph)?;
    for v in graph.inputs().to_vec() {
        // tract wants every input declared; what is fed decides.
        graph.value_mut(v).ty.get_or_insert(Type::Tensor(TensorType { elem: DType::F32, shape: None }));
    }
    let bytes = model_to_proto(&Model { graph, ..scope.model.clone() })?.encode_to_vec();
    let message = tract_onnx::pb::ModelProto::decode(&*bytes)?;
    drop(bytes);
    let mut tract = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
    kernels::register(&mut tract.op_register);
    ranked::register(&mut tract.op_register);
    tract.model_for_proto_model(&message).map_err(tract_error).context(|| "lowering")
}

/// Gives every node a name of its own, makes the constants plain, and forgets declared shapes: what runs is shaped by
/// the feed alone.
fn prepare(graph: &mut Graph) -> Result<()> {
    let mut names = HashSet::new();
    for id in graph.order()? {
        let first = graph.node_outputs(id).into_iter().flatten().next();
        let first = first.map(|v| graph.name(v).to_string()).unwrap_or_default();
        let node = graph.node_mut(id);
        let mut name = if node.name.is_empty() { first } else { node.name.to_string() };
        if !names.insert(name.clone()) {
            name = format!("{name}#{}", names.len());
            names.insert(name.clone());
        }
        node.name = name.into();
    }
    for v in graph.values().collect::<Vec<_>>() {
        let value = graph.value_mut(v);
        value.shell = None;
        if let Some(t) = &mut value.init {
            let name = &value.name;
            if !matches!(t.data, TensorData::Raw(_) | TensorData::Strings(_)) {
                let bytes = t.bytes().context(|| format!("initializer \"{name}\""))?.into_owned();
                t.data = TensorData::Raw(bytes.into());
            }
            t.extra = None;
        }
        if let Some(Type::Tensor(t)) = &mut value.ty {
            t.shape = None;
        }
    }
    Ok(())
}

/// Replaces what tract gets wrong or lacks.
fn rewrite(graph: &mut Graph) -> Result<()> {
    fold::constants(graph)?;
    fold::casts(graph)?;
    for id in graph.order()? {
        let label = graph.node(id).label();
        rewrite_node(graph, id).context(|| label)?;
    }
    // Afterwards, so that what the rewriting made constant is seen.
    graph.eliminate_dead()?;
    fold::dequantize(graph)
}

fn rewrite_node(graph: &mut Graph, id: NodeId) -> Result<()> {
    let node = graph.node(id);
    let op_type = node.op.op_type.clone();
    let (standard, microsoft) = (node.op.domain.is_empty(), &*node.op.domain == MICROSOFT);
    if standard && matches!(&*op_type, "Conv" | "Slice") {
        repair::hold_stride(graph, id)?;
    }
    if standard && matches!(&*op_type, "Conv" | "ConvTranspose" | "MatMul" | "Gemm" | "Einsum") {
        repair::hold_repetition(graph, id)?;
    }
    let node = graph.node(id);
    let renamed = match &*op_type {
        "QuantizeLinear" => kernels::QUANTIZE,
        "DequantizeLinear" => kernels::DEQUANTIZE,
        "DynamicQuantizeLinear" => kernels::DYNAMIC_QUANTIZE,
        "QLinearConv" => return integer::qlinear_conv(graph, id),
        "QLinearMatMul" if standard => return integer::qlinear_matmul(graph, id),
        "ConvInteger" if standard => return integer::conv_integer(graph, id),
        "MatMulInteger" if standard => return integer::matmul_integer(graph, id),
        "DynamicQuantizeLSTM" if microsoft => return dynamic_lstm::rewrite(graph, id),
        "MatMulIntegerToFloat" if microsoft => return integer::matmul_to_float(graph, id),
        "DynamicQuantizeMatMul" if microsoft => return integer::dynamic_matmul(graph, id),
        "MatMulNBits" if microsoft => return nbits::matmul(graph, id),
        "GatherBlockQuantized" if microsoft => return nbits::gather(graph, id),
        "QGemm" if microsoft => return integer::qgemm(graph, id),
        "ConstantOfShape" if node.tensor("value").is_none() => {
            // The default is f32; tract's is f64.
            graph.node_mut(id).set("value", Tensor::from_f32(&[1], &[0.0]).into());
            return Ok(());
        }
        "Range" => return repair::range(graph, id),
        "LSTM" if plain::recurrence(graph, id) => return repair::lstm(graph, id),
        "GRU" | "RNN" if plain::recurrence(graph, id) => return Ok(()),
        "ConvTranspose" if plain::conv_transpose(graph, id) => return Ok(()),
        "Resize" if node.int("antialias").unwrap_or(0) != 0 => return Ok(()),
        "Slice" if plain::slice(graph, id) => return Ok(()),
        "Einsum" if plain::einsum(graph, id) => return Ok(()),
        "AveragePool" | "MaxPool" => return repair::unpadded(graph, id),
        "Pad" if plain::pad(graph, id) => return Ok(()),
        "BatchNormalization" if node.int("training_mode").unwrap_or(0) == 0 => return Ok(()),
        "SpaceToDepth" if node.string("mode").unwrap_or("DCR") == "DCR" => return Ok(()),
        "Softplus" => return repair::softplus(graph, id),
        "Celu" => return repair::celu(graph, id),
        "Swish" => return repair::swish(graph, id),
        _ if microsoft && composite::knows(&op_type) => return composite::rewrite(graph, id),
        _ if standard => match kernels::private(&op_type) {
            Some(name) => name,
            None => return Ok(()),
        },
        _ => return Ok(()),
    };
    if renamed == kernels::QUANTIZE
        && let Some(zero) = graph.input(id, 2).and_then(|v| graph.ty(v)).and_then(|t| t.elem())
        && !matches!(zero, DType::U8 | DType::I8 | DType::U16 | DType::I16)
    {
        return Err(Error::unsupported(format!("tract has no tensors of {zero}")));
    }
    graph.node_mut(id).op = crate::ir::OpId::onnx(renamed);
    Ok(())
}
