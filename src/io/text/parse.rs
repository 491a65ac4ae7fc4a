//! Models, graphs, nodes, functions.

use super::attributes::{attribute, attributes};
use super::cursor::Cursor;
use super::tensors::{entries, next_is_type, tensor, type_proto, value_info};
use crate::error::Result;
use crate::io::model_from_proto;
use crate::ir::Model;
use crate::proto::{FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto};

/// Parses a model in ONNX's text syntax (see [`crate::io::text`]).
///
/// # Errors
/// The first thing that does not fit, with its line and column; names that are defined twice. The model is not verified
/// ([`Model::verify`]), so that a test may describe one that is invalid.
pub fn parse_model(text: &str) -> Result<Model> {
    model_from_proto(model_proto(text)?)
}

/// [`parse_model`] for a text without a header: IR version 10, the given version of the default domain, version 1 of
/// `com.microsoft`.
///
/// # Errors
/// As [`parse_model`].
pub fn parse_graph(text: &str, opset: i64) -> Result<Model> {
    let mut model = parse_model(text)?;
    model.shell.ir_version = Some(10);
    model.import("", opset);
    model.import(crate::ir::MICROSOFT, 1);
    Ok(model)
}

pub(super) fn model_proto(text: &str) -> Result<ModelProto> {
    let mut c = Cursor::new(text);
    let mut m = ModelProto::default();
    if c.eat("<") {
        c.list(">", |c| header_field(c, &mut m))?;
    }
    let name = c.name("the name of the graph")?;
    m.graph = Some(graph_after_name(&mut c, name)?);
    while !c.at_end() {
        m.functions.push(function(&mut c)?);
    }
    Ok(m)
}

fn header_field(c: &mut Cursor, m: &mut ModelProto) -> Result<()> {
    let start = c.position();
    let key = c.identifier("a field of the model: ir_version, opset_import, ...")?;
    c.expect(":")?;
    match key {
        "ir_version" => m.ir_version = Some(c.int()?),
        "opset_import" => m.opset_import = opsets(c)?,
        "producer_name" => m.producer_name = Some(c.string()?),
        "producer_version" => m.producer_version = Some(c.string()?),
        "domain" => m.domain = Some(c.string()?),
        "model_version" => m.model_version = Some(c.int()?),
        "doc_string" => m.doc_string = Some(c.string()?),
        "metadata_props" => {
            c.expect("[")?;
            m.metadata_props = entries(c)?;
        }
        _ => return Err(c.error_at(start, "unknown field of the model")),
    }
    Ok(())
}

/// `["domain" : version, ...]`.
fn opsets(c: &mut Cursor) -> Result<Vec<OperatorSetIdProto>> {
    let mut out = vec![];
    c.expect("[")?;
    c.list("]", |c| {
        let domain = Some(c.string()?);
        c.expect(":")?;
        out.push(OperatorSetIdProto { domain, version: Some(c.int()?) });
        Ok(())
    })?;
    Ok(out)
}

/// `(inputs) => (outputs) <initializers and declarations> { nodes }`.
pub(super) fn graph_after_name(c: &mut Cursor, name: String) -> Result<GraphProto> {
    let mut g = GraphProto { name: Some(name), ..Default::default() };
    c.expect("(")?;
    c.list(")", |c| {
        let info = value_info(c)?;
        if c.eat("=") {
            g.initializer.push(tensor(c, info.r#type.as_ref(), info.name.clone())?);
        }
        g.input.push(info);
        Ok(())
    })?;
    c.expect("=>")?;
    c.expect("(")?;
    c.list(")", |c| {
        g.output.push(value_info(c)?);
        Ok(())
    })?;
    if c.eat("<") {
        c.list(">", |c| {
            let info = value_info(c)?;
            if c.eat("=") {
                g.initializer.push(tensor(c, info.r#type.as_ref(), info.name)?);
            } else {
                g.value_info.push(info);
            }
            Ok(())
        })?;
    }
    g.node = nodes(c)?;
    Ok(g)
}

fn nodes(c: &mut Cursor) -> Result<Vec<NodeProto>> {
    let mut out = vec![];
    c.expect("{")?;
    while !c.eat("}") {
        out.push(node(c)?);
    }
    Ok(out)
}

/// `[name] outputs = [domain.]Operator[:overload] <attributes> (inputs)`.
fn node(c: &mut Cursor) -> Result<NodeProto> {
    let mut n = NodeProto::default();
    if c.eat("[") {
        n.name = c.optional_name()?;
        c.expect("]")?;
    }
    n.output = names(c)?;
    c.expect("=")?;
    let mut parts = vec![c.name("an operator")?];
    while c.eat(".") {
        parts.push(c.name("an operator")?);
    }
    n.op_type = parts.pop();
    n.domain = (!parts.is_empty()).then(|| parts.join("."));
    if c.eat(":") {
        n.overload = Some(c.name("an overload")?);
    }
    n.attribute = attributes(c)?;
    c.expect("(")?;
    n.input = names(c)?;
    c.expect(")")?;
    if n.attribute.is_empty() {
        n.attribute = attributes(c)?;
    }
    Ok(n)
}

/// Names separated by commas. A missing one is an absent optional value, except after the last comma.
fn names(c: &mut Cursor) -> Result<Vec<String>> {
    let mut out = vec![];
    loop {
        let name = c.optional_name()?;
        let comma = c.eat(",");
        if name.is_some() || comma {
            out.push(name.unwrap_or_default());
        }
        if !comma {
            return Ok(out);
        }
    }
}

/// `<domain: "d", opset_import: [...]> Name <attribute, attribute = default> (inputs) => (outputs) { nodes }`.
fn function(c: &mut Cursor) -> Result<FunctionProto> {
    let mut f = FunctionProto::default();
    if c.eat("<") {
        c.list(">", |c| {
            let start = c.position();
            let key = c.identifier("a field of the function: domain, opset_import, ...")?;
            c.expect(":")?;
            match key {
                "opset_import" => f.opset_import = opsets(c)?,
                "doc_string" => f.doc_string = Some(c.string()?),
                "domain" => f.domain = Some(c.string()?),
                "overload" => f.overload = Some(c.string()?),
                _ => return Err(c.error_at(start, "unknown field of the function")),
            }
            Ok(())
        })?;
    }
    f.name = Some(c.name("the name of a function")?);
    if c.eat("<") {
        c.list(">", |c| {
            let name = c.name("the name of an attribute")?;
            match c.peek() {
                Some(b':' | b'=') => f.attribute_proto.push(attribute(c, name)?),
                _ => f.attribute.push(name),
            }
            Ok(())
        })?;
    }
    f.input = parameters(c, &mut f.value_info)?;
    c.expect("=>")?;
    f.output = parameters(c, &mut f.value_info)?;
    if c.eat("<") {
        c.list(">", |c| {
            f.value_info.push(value_info(c)?);
            Ok(())
        })?;
    }
    f.node = nodes(c)?;
    Ok(f)
}

/// `([type] name, ...)`; those with a type are declared in `infos` too.
fn parameters(c: &mut Cursor, infos: &mut Vec<ValueInfoProto>) -> Result<Vec<String>> {
    let mut out = vec![];
    c.expect("(")?;
    c.list(")", |c| {
        let ty = if next_is_type(c) { Some(type_proto(c)?) } else { None };
        let name = c.name("the name of a value")?;
        if ty.is_some() {
            infos.push(ValueInfoProto { name: Some(name.clone()), r#type: ty, ..Default::default() });
        }
        out.push(name);
        Ok(())
    })?;
    Ok(out)
}
