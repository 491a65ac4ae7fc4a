//! From the IR back to protobuf messages.

use crate::error::Result;
use crate::ir::{
    Attribute, AttributeValue, Graph, Model, Node, NodeId, Tensor, TensorData, TensorExtra, Type, Value, ValueId,
};
use crate::proto;
use std::sync::Arc;

/// Builds the message that describes the model. Weights are shared, not copied.
///
/// # Errors
/// A graph with a cycle.
pub fn model_to_proto(model: &Model) -> Result<proto::ModelProto> {
    let mut message = model.shell.clone();
    message.opset_import = model.opsets.clone();
    message.functions = model.functions.clone();
    message.graph = Some(graph_to_proto(&model.graph)?);
    Ok(message)
}

/// Builds the message of one graph.
///
/// # Errors
/// A graph with a cycle.
pub fn graph_to_proto(graph: &Graph) -> Result<proto::GraphProto> {
    let shell = graph.shell.clone();
    let order = graph.order()?;
    // Bodies nest, so this recurses: loops, where iterator adapters would put a dozen frames on the stack at each level.
    let mut node = Vec::with_capacity(order.len());
    for id in order {
        node.push(node_to_proto(graph, id)?);
    }
    let mut out = proto::GraphProto {
        node,
        name: shell.name,
        initializer: vec![],
        sparse_initializer: vec![],
        doc_string: shell.doc_string,
        input: vec![],
        output: vec![],
        value_info: value_info(graph),
        quantization_annotation: shell.quantization_annotation,
        metadata_props: shell.metadata_props,
    };
    for v in graph.values() {
        let value = graph.value(v);
        match &value.init {
            Some(Tensor { dims, data: TensorData::Sparse(s), .. }) => {
                out.sparse_initializer.push(proto::SparseTensorProto {
                    values: Some(tensor_to_proto(&s.values, Some(value.name.to_string()))),
                    indices: Some(tensor_to_proto(&s.indices, s.indices_name.clone())),
                    dims: dims.iter().map(|&d| d as i64).collect(),
                });
            }
            Some(t) => out.initializer.push(tensor_to_proto(t, Some(value.name.to_string()))),
            None => {}
        }
    }
    let declare = |v: &ValueId, output: bool| {
        let value = graph.value(*v);
        let shell = value.shell.as_deref();
        let original = shell.and_then(|s| if output { s.output.as_ref() } else { s.input.as_ref() });
        declaration(value, original)
    };
    out.input = graph.inputs().iter().map(|v| declare(v, false)).collect();
    out.output = graph.outputs().iter().map(|v| declare(v, true)).collect();
    Ok(out)
}

/// The `value_info` list: the entries that the file had, of values that are still there, in the file's order.
fn value_info(graph: &Graph) -> Vec<proto::ValueInfoProto> {
    let listed = graph.values().filter_map(|v| {
        let value = graph.value(v);
        let (rank, original) = value.shell.as_deref()?.listed.as_ref()?;
        Some((*rank, declaration(value, Some(original))))
    });
    let mut listed: Vec<_> = listed.collect();
    listed.sort_by_key(|(rank, _)| *rank);
    listed.into_iter().map(|(_, info)| info).collect()
}

/// A value's declaration: as the file had it while that does not contradict what is known now.
fn declaration(value: &Value, original: Option<&proto::ValueInfoProto>) -> proto::ValueInfoProto {
    let Some(original) = original else {
        let (name, ty) = (Some(value.name.to_string()), value.ty.as_ref().map(Type::to_proto));
        return proto::ValueInfoProto { name, r#type: ty, ..Default::default() };
    };
    let mut info = original.clone();
    if info.name() != &*value.name {
        info.name = Some(value.name.to_string());
    }
    let declared = info.r#type.as_ref().map(Type::from_proto);
    let fits = match (&declared, &value.ty) {
        (Some(a), Some(b)) => compatible(a, b),
        (None, Some(_)) => value.init.is_some() || original.name() == &*value.name,
        (_, None) => true,
    };
    if !fits {
        info.r#type = value.ty.as_ref().map(Type::to_proto);
    }
    info
}

fn compatible(a: &Type, b: &Type) -> bool {
    let (Type::Tensor(a), Type::Tensor(b)) = (a, b) else { return a == b };
    let shapes = match (&a.shape, &b.shape) {
        (Some(a), Some(b)) => {
            let agree = |(x, y): (&crate::ir::Dim, &crate::ir::Dim)| match (x.known(), y.known()) {
                (Some(x), Some(y)) => x == y,
                _ => true,
            };
            a.len() == b.len() && a.iter().zip(b).all(agree)
        }
        _ => true,
    };
    a.elem == b.elem && shapes
}

fn node_to_proto(graph: &Graph, id: NodeId) -> Result<proto::NodeProto> {
    let node: &Node = graph.node(id);
    let names = |slots: Vec<Option<ValueId>>| -> Vec<String> {
        slots.into_iter().map(|v| v.map_or_else(String::new, |v| graph.name(v).to_string())).collect()
    };
    let shell = node.shell.as_deref().cloned().unwrap_or_default();
    let filled = |s: &str, keep_empty: bool| (keep_empty || !s.is_empty()).then(|| s.to_string());
    let mut attribute = Vec::with_capacity(node.attributes.len());
    for a in &node.attributes {
        attribute.push(attribute_to_proto(a)?);
    }
    Ok(proto::NodeProto {
        input: names(graph.node_inputs(id)),
        output: names(graph.node_outputs(id)),
        name: filled(&node.name, shell.empty_name),
        op_type: Some(node.op.op_type.to_string()),
        domain: shell.domain.or_else(|| filled(&node.op.domain, false)),
        overload: filled(&node.op.overload, shell.empty_overload),
        attribute,
        doc_string: shell.doc_string,
        metadata_props: shell.metadata_props,
        device_configurations: shell.device_configurations,
    })
}

fn attribute_to_proto(a: &Attribute) -> Result<proto::AttributeProto> {
    use proto::attribute_proto::AttributeType as T;
    let mut p = proto::AttributeProto {
        name: Some(a.name.to_string()),
        doc_string: a.doc_string.clone(),
        ..proto::AttributeProto::default()
    };
    let kind = match &a.value {
        AttributeValue::Verbatim(original) => return Ok((**original).clone()),
        AttributeValue::Float(x) => {
            p.f = (!a.unset).then_some(*x);
            T::Float
        }
        AttributeValue::Int(x) => {
            p.i = (!a.unset).then_some(*x);
            T::Int
        }
        AttributeValue::String(s) => {
            p.s = (!a.unset).then(|| s.clone());
            T::String
        }
        AttributeValue::Tensor(t) => {
            p.t = Some(tensor_to_proto(t, None));
            T::Tensor
        }
        AttributeValue::Graph(g) => {
            p.g = Some(graph_to_proto(g)?);
            T::Graph
        }
        AttributeValue::Floats(v) => {
            p.floats.clone_from(v);
            T::Floats
        }
        AttributeValue::Ints(v) => {
            p.ints.clone_from(v);
            T::Ints
        }
        AttributeValue::Strings(v) => {
            p.strings.clone_from(v);
            T::Strings
        }
        AttributeValue::Tensors(v) => {
            p.tensors = v.iter().map(|t| tensor_to_proto(t, None)).collect();
            T::Tensors
        }
        AttributeValue::Graphs(v) => {
            let graphs: Result<Vec<_>> = v.iter().map(graph_to_proto).collect();
            p.graphs = graphs?;
            T::Graphs
        }
    };
    p.r#type = a.typed.then_some(kind as i32);
    Ok(p)
}

/// Builds a `TensorProto`; raw bytes are shared, not copied.
pub fn tensor_to_proto(t: &Tensor, name: Option<String>) -> proto::TensorProto {
    let default = Arc::new(TensorExtra::default());
    let extra = t.extra.as_ref().unwrap_or(&default);
    let mut p = match &t.data {
        TensorData::Typed(fields) => (**fields).clone(),
        _ => proto::TensorProto::default(),
    };
    p.dims = t.dims.iter().map(|&d| d as i64).collect();
    p.data_type = Some(t.dtype.onnx());
    p.name = name.or_else(|| extra.name.clone());
    p.doc_string = extra.doc_string.clone();
    p.metadata_props = extra.metadata_props.clone();
    p.data_location = extra.data_location;
    match &t.data {
        TensorData::Raw(b) => p.raw_data = (!b.is_empty() || extra.empty_raw).then(|| b.clone()),
        TensorData::Strings(s) => p.string_data = (**s).clone(),
        TensorData::External(e) => {
            p.data_location = Some(proto::tensor_proto::DataLocation::External as i32);
            let entry = |(k, v): &(String, String)| proto::StringStringEntryProto {
                key: Some(k.clone()),
                value: Some(v.clone()),
            };
            p.external_data = e.entries.iter().map(entry).collect();
        }
        TensorData::Typed(_) | TensorData::Sparse(_) => {}
    }
    p
}
