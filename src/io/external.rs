//! External data: elements of tensors in files beside the model.
//!
//! A model is untrusted input, so a data file is opened only after its location was contained: a relative path without
//! `..`, without symbolic links on the way, with one hard link only, inside the model's folder.

use super::mapped::map_file;
use super::{tensor_from_proto, tensor_to_proto};
use crate::error::{Context, Error, Result};
use crate::ir::{AttributeValue, DType, External, Graph, Model, NodeId, Tensor, TensorData, ValueId};
use crate::proto;
use bytes::Bytes;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Maps the external data of every tensor of the model from `folder`.
///
/// Initializers stay external; tensors in attributes, sparse parts, functions and training graphs become inline ones
/// that alias the mapped file, so nothing else needs to know that they were external.
///
/// # Errors
/// A location outside the folder, a missing file, an offset or length beyond its end.
pub fn load_external(model: &mut Model, folder: &Path) -> Result<()> {
    let mut files = Files { folder: folder.to_path_buf(), open: HashMap::new() };
    load_graph(&mut model.graph, &mut files)?;
    for f in &mut model.functions {
        let name = f.name().to_string();
        let defaults = f.attribute_proto.iter_mut();
        let mut attributes = defaults.chain(f.node.iter_mut().flat_map(|n| &mut n.attribute));
        attributes.try_for_each(|a| inline_attribute(a, &mut files)).context(|| format!("function \"{name}\""))?;
    }
    for t in &mut model.shell.training_info {
        for g in t.initialization.iter_mut().chain(&mut t.algorithm) {
            inline_graph(g, &mut files).context(|| "training_info")?;
        }
    }
    Ok(())
}

/// Data files of one model, each mapped once.
struct Files {
    folder: PathBuf,
    open: HashMap<String, Bytes>,
}

fn load_graph(graph: &mut Graph, files: &mut Files) -> Result<()> {
    let values: Vec<ValueId> = graph.values().collect();
    for v in values {
        let name = graph.value(v).name.clone();
        if let Some(t) = &mut graph.value_mut(v).init {
            load_initializer(t, files).context(|| format!("initializer \"{name}\""))?;
        }
    }
    let nodes: Vec<NodeId> = graph.nodes().collect();
    for n in nodes {
        let node = graph.node_mut(n);
        let label = node.label();
        for a in &mut node.attributes {
            match &mut a.value {
                AttributeValue::Tensor(t) => inline(t, files).context(|| &label)?,
                AttributeValue::Tensors(ts) => ts.iter_mut().try_for_each(|t| inline(t, files)).context(|| &label)?,
                AttributeValue::Verbatim(p) => inline_attribute(p, files).context(|| &label)?,
                _ => {}
            }
        }
        for body in node.bodies_mut() {
            load_graph(body, files)?;
        }
    }
    Ok(())
}

fn load_initializer(t: &mut Tensor, files: &mut Files) -> Result<()> {
    let TensorData::Sparse(s) = &mut t.data else { return load_tensor(t, files) };
    let is_external = |t: &Tensor| matches!(t.data, TensorData::External(_));
    if is_external(&s.values) || is_external(&s.indices) {
        let s = Arc::make_mut(s);
        inline(&mut s.values, files)?;
        inline(&mut s.indices, files)?;
    }
    Ok(())
}

/// Maps an external tensor and makes it an inline one.
fn inline(t: &mut Tensor, files: &mut Files) -> Result<()> {
    load_tensor(t, files)?;
    if let TensorData::External(e) = &t.data
        && let Some(bytes) = &e.bytes
    {
        t.data = TensorData::Raw(bytes.clone());
    }
    Ok(())
}

fn inline_message(p: &mut proto::TensorProto, files: &mut Files) -> Result<()> {
    if p.data_location() != proto::tensor_proto::DataLocation::External {
        return Ok(());
    }
    let (name, mut tensor) = tensor_from_proto(p.clone())?;
    inline(&mut tensor, files).context(|| format!("tensor \"{}\"", name.as_deref().unwrap_or_default()))?;
    *p = tensor_to_proto(&tensor, name);
    Ok(())
}

fn inline_attribute(p: &mut proto::AttributeProto, files: &mut Files) -> Result<()> {
    let sparse = p.sparse_tensor.iter_mut().chain(&mut p.sparse_tensors);
    let sparse = sparse.flat_map(|s| s.values.iter_mut().chain(&mut s.indices));
    p.t.iter_mut().chain(&mut p.tensors).chain(sparse).try_for_each(|t| inline_message(t, files))?;
    p.g.iter_mut().chain(&mut p.graphs).try_for_each(|g| inline_graph(g, files))
}

fn inline_graph(p: &mut proto::GraphProto, files: &mut Files) -> Result<()> {
    let sparse = p.sparse_initializer.iter_mut().flat_map(|s| s.values.iter_mut().chain(&mut s.indices));
    p.initializer.iter_mut().chain(sparse).try_for_each(|t| inline_message(t, files))?;
    let mut attributes = p.node.iter_mut().flat_map(|n| &mut n.attribute);
    attributes.try_for_each(|a| inline_attribute(a, files))
}

fn load_tensor(t: &mut Tensor, files: &mut Files) -> Result<()> {
    let TensorData::External(e) = &t.data else { return Ok(()) };
    if t.dtype == DType::String {
        return Err(Error::invalid("strings cannot be external data"));
    }
    let get = |key: &str| e.entries.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    let location = get("location").ok_or_else(|| Error::invalid("external data without a location"))?;
    let number = |key: &str| -> Result<Option<usize>> {
        let bad = |_| Error::invalid(format!("external data: {key} is not a number"));
        get(key).map(|v| v.parse::<usize>().map_err(bad)).transpose()
    };
    let offset = number("offset")?.unwrap_or(0);
    let expected = t.dtype.bytes_for(t.len());
    let expected = expected.ok_or_else(|| Error::invalid("the tensor's size overflows"))?;
    let length = number("length")?.unwrap_or(expected);
    if length != expected {
        return Err(Error::invalid(format!(
            "external data: length {length} does not match the tensor, which takes {expected} bytes"
        )));
    }
    let file = files.get(location)?;
    let end = offset.checked_add(length).filter(|&end| end <= file.len());
    let end = end.ok_or_else(|| {
        let size = file.len();
        Error::invalid(format!(
            "external data: bytes {offset}+{length} are beyond the end of \"{location}\" ({size} bytes)"
        ))
    })?;
    let bytes = Some(file.slice(offset..end));
    t.data = TensorData::External(Arc::new(External { entries: e.entries.clone(), bytes }));
    Ok(())
}

impl Files {
    fn get(&mut self, location: &str) -> Result<Bytes> {
        if let Some(bytes) = self.open.get(location) {
            return Ok(bytes.clone());
        }
        let path = contained(&self.folder, location)?;
        let bytes = map_file(&path)?;
        self.open.insert(location.to_string(), bytes.clone());
        Ok(bytes)
    }
}

/// The path of a data file, if it is inside `folder` in every sense.
fn contained(folder: &Path, location: &str) -> Result<PathBuf> {
    let outside = |why: &str| Error::invalid(format!("external data: location \"{location}\" {why}; it is not opened"));
    let relative = Path::new(location);
    let plain = relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !plain || location.is_empty() {
        return Err(outside("leaves the model's folder"));
    }
    let mut path = folder.to_path_buf();
    for part in relative.components().filter(|c| matches!(c, Component::Normal(_))) {
        path.push(part);
        let meta = std::fs::symlink_metadata(&path);
        let meta = meta.context(|| format!("external data file \"{}\"", path.display()))?;
        if meta.file_type().is_symlink() {
            return Err(outside("goes through a symbolic link"));
        }
    }
    let meta = std::fs::metadata(&path).context(|| format!("external data file \"{}\"", path.display()))?;
    if !meta.is_file() {
        return Err(outside("is not a regular file"));
    }
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::nlink(&meta) > 1 {
        return Err(outside("is a hard link, so it may be a file from elsewhere"));
    }
    Ok(path)
}
