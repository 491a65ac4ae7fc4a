//! From protobuf messages to the IR.

use super::nesting;
use crate::error::{Context, Error, Result};
use crate::ir::{
    Attribute, AttributeValue, DType, External, Graph, GraphShell, Model, Node, NodeShell, OpId, Sparse, Tensor,
    TensorData, TensorExtra, Type, Value, ValueId, ValueShell, canonical_domain,
};
use crate::proto;
use bytes::Bytes;
use prost::Message;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Decodes a model. The weights alias `bytes`; external data are left unloaded (see [`super::load`]).
///
/// # Errors
/// Bytes that are not a `ModelProto`, a model without a graph, and names that are defined twice.
pub fn decode_model(bytes: Bytes) -> Result<Model> {
    if bytes.is_empty() {
        return Err(Error::invalid("the file is empty"));
    }
    nesting::check(&bytes, nesting::Kind::Model)?;
    let message = proto::ModelProto::decode(bytes)?;
    model_from_proto(message)
}

/// Builds the IR from a decoded message.
///
/// # Errors
/// As [`decode_model`].
pub fn model_from_proto(mut message: proto::ModelProto) -> Result<Model> {
    let graph = message.graph.take();
    let graph = graph.ok_or_else(|| Error::invalid("not an ONNX model: it holds no graph"))?;
    let opsets = std::mem::take(&mut message.opset_import);
    let functions = std::mem::take(&mut message.functions);
    Ok(Model { opsets, graph: graph_from_proto(graph)?, functions, shell: message })
}

fn graph_from_proto(p: proto::GraphProto) -> Result<Graph> {
    // Destructured without `..`: a field that a newer schema adds must be considered here.
    let proto::GraphProto {
        node,
        name,
        initializer,
        sparse_initializer,
        doc_string,
        input,
        output,
        value_info,
        quantization_annotation,
        metadata_props,
    } = p;
    let shell = GraphShell { name, doc_string, quantization_annotation, metadata_props };
    let mut graph = Graph::default();
    graph.shell = shell;
    for t in initializer {
        let (name, tensor) = tensor_from_proto(t)?;
        add_initializer(&mut graph, name.unwrap_or_default(), tensor)?;
    }
    for s in sparse_initializer {
        let (name, tensor) = sparse_from_proto(s)?;
        add_initializer(&mut graph, name.unwrap_or_default(), tensor)?;
    }
    let mut inputs = Vec::with_capacity(input.len());
    let mut seen = HashSet::new();
    for info in input {
        let id = declared(&mut graph, &info)?;
        if !seen.insert(id) {
            return Err(Error::invalid(format!("duplicate value name \"{}\": two graph inputs have it", info.name())));
        }
        shell_of(&mut graph, id).input = Some(info);
        inputs.push(id);
    }
    graph.set_inputs(inputs);
    let mut outputs = Vec::with_capacity(output.len());
    for info in output {
        let id = declared(&mut graph, &info)?;
        shell_of(&mut graph, id).output = Some(info);
        outputs.push(id);
    }
    graph.set_outputs(outputs);
    for (rank, info) in value_info.into_iter().enumerate() {
        let id = declared(&mut graph, &info)?;
        shell_of(&mut graph, id).listed = Some((rank as u32, info));
    }
    let mut interned = Interner::default();
    for (rank, n) in node.into_iter().enumerate() {
        add_node(&mut graph, n, rank as u32, &mut interned)?;
    }
    Ok(graph)
}

fn add_initializer(graph: &mut Graph, name: String, tensor: Tensor) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid("an initializer has no name"));
    }
    let mut value = Value::named(name);
    value.ty = Some(Type::tensor(tensor.dtype, &tensor.dims));
    value.init = Some(tensor);
    graph.add_value(value)?;
    Ok(())
}

/// The value that a `ValueInfoProto` declares, with its type where none is known yet.
fn declared(graph: &mut Graph, info: &proto::ValueInfoProto) -> Result<ValueId> {
    if info.name().is_empty() {
        return Err(Error::invalid("a graph input, output or value_info entry has no name"));
    }
    let id = graph.value_or_new(info.name())?;
    let value = graph.value_mut(id);
    if value.ty.is_none() {
        value.ty = info.r#type.as_ref().map(Type::from_proto);
    }
    Ok(id)
}

fn shell_of(graph: &mut Graph, id: ValueId) -> &mut ValueShell {
    graph.value_mut(id).shell.get_or_insert_default()
}

/// Shares the strings of operator names among nodes.
#[derive(Default)]
struct Interner(HashMap<String, Arc<str>>);

impl Interner {
    fn get(&mut self, s: &str) -> Arc<str> {
        if let Some(found) = self.0.get(s) {
            return found.clone();
        }
        let new: Arc<str> = s.into();
        self.0.insert(s.to_string(), new.clone());
        new
    }
}

fn add_node(graph: &mut Graph, p: proto::NodeProto, rank: u32, interned: &mut Interner) -> Result<()> {
    let proto::NodeProto {
        input,
        output,
        name,
        op_type,
        domain,
        overload,
        attribute,
        doc_string,
        metadata_props,
        device_configurations,
    } = p;
    let op = OpId {
        domain: interned.get(canonical_domain(domain.as_deref().unwrap_or_default())),
        op_type: interned.get(op_type.as_deref().unwrap_or_default()),
        overload: interned.get(overload.as_deref().unwrap_or_default()),
    };
    let written_domain = domain.filter(|d| canonical_domain(d).is_empty());
    let empty_name = name.as_deref() == Some("");
    let empty_overload = overload.as_deref() == Some("");
    let shell = NodeShell {
        doc_string,
        metadata_props,
        device_configurations,
        empty_name,
        domain: written_domain,
        empty_overload,
    };
    let mut node = Node::new(op);
    node.name = name.unwrap_or_default().into();
    node.rank = rank;
    node.shell = (shell != NodeShell::default()).then(|| Box::new(shell));
    let label = node.label();
    let attributes: Result<Vec<_>> = attribute.into_iter().map(attribute_from_proto).collect();
    node.attributes = attributes.context(|| &label)?;
    let ids = |graph: &mut Graph, names: Vec<String>| -> Result<Vec<Option<ValueId>>> {
        let id = |n: String| if n.is_empty() { Ok(None) } else { graph.value_or_new(&n).map(Some) };
        names.into_iter().map(id).collect()
    };
    let inputs = ids(graph, input)?;
    let outputs = ids(graph, output)?;
    graph.add_node(node, &inputs, &outputs)?;
    Ok(())
}

fn attribute_from_proto(mut p: proto::AttributeProto) -> Result<Attribute> {
    use proto::attribute_proto::AttributeType as T;
    let name: Arc<str> = p.name().into();
    let typed = p.r#type.is_some();
    let kind = if typed { p.r#type() } else { guess_type(&p) };
    let missing = || Error::invalid(format!("attribute \"{name}\" has no value of its declared type"));
    let verbatim = p.ref_attr_name.is_some() || !holds_only(&p, kind);
    let value = match kind {
        _ if verbatim => AttributeValue::Verbatim(Box::new(p.clone())),
        T::Float => AttributeValue::Float(p.f()),
        T::Int => AttributeValue::Int(p.i()),
        T::String => AttributeValue::String(p.s().to_vec()),
        T::Floats => AttributeValue::Floats(std::mem::take(&mut p.floats)),
        T::Ints => AttributeValue::Ints(std::mem::take(&mut p.ints)),
        T::Strings => AttributeValue::Strings(std::mem::take(&mut p.strings)),
        T::Tensor => AttributeValue::Tensor(named_tensor(p.t.take().ok_or_else(missing)?)?),
        T::Tensors => {
            let tensors: Result<_> = std::mem::take(&mut p.tensors).into_iter().map(named_tensor).collect();
            AttributeValue::Tensors(tensors?)
        }
        T::Graph => AttributeValue::Graph(Box::new(graph_from_proto(p.g.take().ok_or_else(missing)?)?)),
        T::Graphs => {
            let graphs: Result<_> = std::mem::take(&mut p.graphs).into_iter().map(graph_from_proto).collect();
            AttributeValue::Graphs(graphs?)
        }
        _ => AttributeValue::Verbatim(Box::new(p.clone())),
    };
    let unset = match kind {
        T::Float => p.f.is_none(),
        T::Int => p.i.is_none(),
        T::String => p.s.is_none(),
        _ => false,
    };
    let doc_string = if matches!(value, AttributeValue::Verbatim(_)) { None } else { p.doc_string };
    Ok(Attribute { name, value, doc_string, typed, unset })
}

/// Before IR version 2 the type was implied by which field is set.
fn guess_type(p: &proto::AttributeProto) -> proto::attribute_proto::AttributeType {
    use proto::attribute_proto::AttributeType as T;
    match p {
        p if p.f.is_some() => T::Float,
        p if p.i.is_some() => T::Int,
        p if p.s.is_some() => T::String,
        p if p.t.is_some() => T::Tensor,
        p if p.g.is_some() => T::Graph,
        p if !p.floats.is_empty() => T::Floats,
        p if !p.ints.is_empty() => T::Ints,
        p if !p.strings.is_empty() => T::Strings,
        p if !p.tensors.is_empty() => T::Tensors,
        p if !p.graphs.is_empty() => T::Graphs,
        _ => T::Undefined,
    }
}

/// Whether the fields of `p` are exactly those of an attribute of type `kind`, so that nothing is lost by reading only
/// that one. A scalar may be unset: that is how proto3 writers spell 0.
fn holds_only(p: &proto::AttributeProto, kind: proto::attribute_proto::AttributeType) -> bool {
    use proto::attribute_proto::AttributeType as T;
    let set = [
        (T::Float, p.f.is_some()),
        (T::Int, p.i.is_some()),
        (T::String, p.s.is_some()),
        (T::Tensor, p.t.is_some()),
        (T::Graph, p.g.is_some()),
        (T::Floats, !p.floats.is_empty()),
        (T::Ints, !p.ints.is_empty()),
        (T::Strings, !p.strings.is_empty()),
        (T::Tensors, !p.tensors.is_empty()),
        (T::Graphs, !p.graphs.is_empty()),
        (T::SparseTensor, p.sparse_tensor.is_some()),
        (T::SparseTensors, !p.sparse_tensors.is_empty()),
        (T::TypeProto, p.tp.is_some()),
        (T::TypeProtos, !p.type_protos.is_empty()),
    ];
    let needs_value = matches!(kind, T::Tensor | T::Graph);
    set.iter().all(|&(t, present)| if t == kind { present || !needs_value } else { !present })
}

/// A tensor that keeps its `TensorProto` name in its extras, as attributes do.
fn named_tensor(p: proto::TensorProto) -> Result<Tensor> {
    let (name, mut tensor) = tensor_from_proto(p)?;
    if name.is_some() {
        let mut extra = tensor.extra.as_deref().cloned().unwrap_or_default();
        extra.name = name;
        tensor.extra = Some(Arc::new(extra));
    }
    Ok(tensor)
}

/// Reads a `TensorProto`; returns its name apart.
///
/// # Errors
/// Unknown element types, negative dimensions, segments.
pub fn tensor_from_proto(mut p: proto::TensorProto) -> Result<(Option<String>, Tensor)> {
    let name = p.name.take();
    let what = || format!("tensor \"{}\"", name.as_deref().unwrap_or_default());
    let code = p.data_type.take().unwrap_or_default();
    let dtype = DType::from_onnx(code);
    let dtype = dtype.ok_or_else(|| Error::invalid(format!("unknown element type {code}"))).context(what)?;
    let negative = |_| Error::invalid("negative dimension");
    let dims: Result<Vec<usize>> = p.dims.iter().map(|&d| usize::try_from(d).map_err(negative)).collect();
    let dims = dims.context(what)?;
    p.dims.clear();
    let total = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).and_then(|n| dtype.bytes_for(n));
    total.ok_or_else(|| Error::invalid("its shape overflows")).context(what)?;
    if p.segment.is_some() {
        return Err(Error::unsupported("segmented tensors")).context(what);
    }
    let mut extra = TensorExtra {
        doc_string: p.doc_string.take(),
        metadata_props: std::mem::take(&mut p.metadata_props),
        name: None,
        data_location: None,
        empty_raw: false,
    };
    let location = p.data_location.take();
    let external = location == Some(proto::tensor_proto::DataLocation::External as i32);
    let raw = p.raw_data.take();
    let data = if external {
        let entry = |e: proto::StringStringEntryProto| (e.key.unwrap_or_default(), e.value.unwrap_or_default());
        let entries = std::mem::take(&mut p.external_data).into_iter().map(entry).collect();
        TensorData::External(Arc::new(External { entries, bytes: None }))
    } else {
        extra.data_location = location;
        if dtype == DType::String {
            TensorData::Strings(Arc::new(std::mem::take(&mut p.string_data)))
        } else if let Some(raw) = raw.filter(|r| !r.is_empty() || has_no_fields(&p)) {
            extra.empty_raw = raw.is_empty();
            TensorData::Raw(raw)
        } else if has_no_fields(&p) {
            TensorData::Raw(Bytes::new())
        } else {
            TensorData::Typed(Arc::new(p))
        }
    };
    let extra = (extra != TensorExtra::default()).then(|| Arc::new(extra));
    Ok((name, Tensor { dtype, dims, data, extra }))
}

fn has_no_fields(p: &proto::TensorProto) -> bool {
    p.float_data.is_empty()
        && p.int32_data.is_empty()
        && p.int64_data.is_empty()
        && p.double_data.is_empty()
        && p.uint64_data.is_empty()
}

pub(super) fn sparse_from_proto(p: proto::SparseTensorProto) -> Result<(Option<String>, Tensor)> {
    let missing = || Error::invalid("a sparse initializer lacks values or indices");
    let (name, values) = tensor_from_proto(p.values.ok_or_else(missing)?)?;
    let (indices_name, indices) = tensor_from_proto(p.indices.ok_or_else(missing)?)?;
    let negative = |_| Error::invalid("a sparse initializer has a negative dimension");
    let dims: Result<Vec<usize>> = p.dims.iter().map(|&d| usize::try_from(d).map_err(negative)).collect();
    let (dtype, sparse) = (values.dtype, Sparse { values, indices, indices_name });
    Ok((name, Tensor { dtype, dims: dims?, data: TensorData::Sparse(Arc::new(sparse)), extra: None }))
}
