//! Sizes of models in bytes.

use super::model_to_proto;
use crate::error::{Context, Result};
use crate::ir::{Graph, Model, TensorData};
use prost::Message;
use std::path::Path;

/// Bytes that the model takes when saved, external data included.
///
/// # Errors
/// A graph with a cycle.
pub fn encoded_size(model: &Model) -> Result<u64> {
    Ok(model_to_proto(model)?.encoded_len() as u64 + external_bytes(&model.graph))
}

/// Bytes of a model file on disk, with the external data that `model`, loaded from it, uses.
///
/// # Errors
/// The file cannot be looked at.
pub fn model_bytes(path: &Path, model: &Model) -> Result<u64> {
    let meta = std::fs::metadata(path).context(|| path.display().to_string())?;
    Ok(meta.len() + external_bytes(&model.graph))
}

fn external_bytes(graph: &Graph) -> u64 {
    let external = |data: &TensorData| matches!(data, TensorData::External(_));
    let tensors = graph.values().filter_map(|v| graph.value(v).init.as_ref()).filter(|t| external(&t.data));
    let own: u64 = tensors.map(|t| t.stored_bytes() as u64).sum();
    own + graph.nodes().flat_map(|n| graph.node(n).bodies()).map(external_bytes).sum::<u64>()
}
