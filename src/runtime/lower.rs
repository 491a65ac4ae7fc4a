//! From the IR to what tract runs faithfully.

use super::kernels;
use super::tensor::tract_error;
use crate::error::{Context, Error, Result};
use crate::io::model_to_proto;
use crate::ir::{Graph, Model, TensorData, Type, ValueId};
use prost::Message;
use std::collections::HashSet;
use tract_onnx::prelude::{Framework, InferenceModel};

/// Every node that cannot run, one line each; empty where the whole model can.
pub fn unsupported(_model: &Model) -> Vec<String> {
    vec![]
}

/// tract's model with the graph outputs `outputs`, which are values of `model`'s main graph.
///
/// # Errors
/// Operators that tract cannot run faithfully, by name.
pub(super) fn lower(model: &Model, outputs: &[ValueId]) -> Result<InferenceModel> {
    let refused = unsupported(model);
    if !refused.is_empty() {
        return Err(Error::unsupported(refused.join("; ")));
    }
    let mut copy = model.clone();
    let graph = &mut copy.graph;
    graph.set_outputs(outputs.to_vec());
    graph.eliminate_dead()?;
    prepare(graph, true)?;
    let bytes = model_to_proto(&copy)?.encode_to_vec();
    drop(copy);
    let message = tract_onnx::pb::ModelProto::decode(&*bytes)?;
    drop(bytes);
    let mut tract = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
    kernels::register(&mut tract.op_register);
    tract.model_for_proto_model(&message).map_err(tract_error).context(|| "lowering")
}

/// Gives every node a name of its own, makes the constants plain, and forgets declared shapes: what runs is shaped by
/// the feed alone.
fn prepare(graph: &mut Graph, main: bool) -> Result<()> {
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
        for body in node.bodies_mut() {
            prepare(body, false)?;
        }
    }
    for v in graph.values().collect::<Vec<_>>() {
        let value = graph.value_mut(v);
        value.shell = None;
        if let Some(t) = &mut value.init {
            if !matches!(t.data, TensorData::Raw(_) | TensorData::Strings(_)) {
                let name = &value.name;
                let bytes = t.bytes().context(|| format!("initializer \"{name}\""))?.into_owned();
                t.data = TensorData::Raw(bytes.into());
            }
            t.extra = None;
        }
        if main && let Some(Type::Tensor(t)) = &mut value.ty {
            t.shape = None;
        }
    }
    Ok(())
}
