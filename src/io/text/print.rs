//! Printing.

use super::attributes::TYPES;
use super::cursor::{is_float_word, is_identifier};
use super::tensors::is_type_word;
use crate::error::{Context, Error, Result};
use crate::io::{model_to_proto, tensor_from_proto};
use crate::ir::{DType, Model, Tensor, TensorData};
use crate::proto::attribute_proto::AttributeType as T;
use crate::proto::tensor_shape_proto::dimension::Value as DimValue;
use crate::proto::type_proto::Value;
use crate::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
};

/// Prints a model in ONNX's text syntax; parsing the text gives the same model again, save what the syntax has no place
/// for: documentation and metadata below the model and functions, and quantization annotations. Sparse initializers
/// become dense ones.
///
/// # Errors
/// A graph with a cycle; strings that are not UTF-8 and sparse tensors in attributes, which the syntax cannot spell.
pub fn print_model(model: &Model) -> Result<String> {
    print_model_with(model, None)
}

/// [`print_model`] for reading: tensors of more than `limit` elements show the first ones and a comment.
///
/// # Errors
/// As [`print_model`].
pub fn print_model_with(model: &Model, limit: Option<usize>) -> Result<String> {
    let message = model_to_proto(model)?;
    let mut p = Printer { out: String::new(), limit, depth: 1 };
    p.model(&message)?;
    Ok(p.out)
}

struct Printer {
    out: String,
    limit: Option<usize>,
    depth: usize,
}

fn quoted(s: &str) -> String {
    format!("\"{}\"", s.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A name, quoted where it is no identifier or would be read as something else.
fn name(s: &str) -> String {
    if is_identifier(s) && !is_type_word(s) && !is_float_word(s) { s.to_string() } else { quoted(s) }
}

fn names(list: &[String]) -> String {
    list.iter().map(|s| name(s)).collect::<Vec<_>>().join(", ")
}

fn utf8(s: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(s).map_err(|_| Error::unsupported("a string that is not UTF-8, as text"))?;
    Ok(quoted(text))
}

fn entries(list: &[StringStringEntryProto]) -> String {
    let each: Vec<_> = list.iter().map(|e| format!("{}: {}", quoted(e.key()), quoted(e.value()))).collect();
    format!("[{}]", each.join(", "))
}

fn opsets(list: &[OperatorSetIdProto]) -> String {
    let each: Vec<_> = list.iter().map(|o| format!("{} : {}", quoted(o.domain()), o.version())).collect();
    format!("[{}]", each.join(", "))
}

fn shape(elem: Option<i32>, shape: Option<&TensorShapeProto>) -> Result<String> {
    let elem = elem.and_then(DType::from_onnx);
    let elem = elem.ok_or_else(|| Error::unsupported("a tensor type without element type, as text"))?;
    let Some(shape) = shape else { return Ok(format!("{elem}[]")) };
    let dims = shape.dim.iter().map(|d| match &d.value {
        Some(DimValue::DimValue(n)) => n.to_string(),
        Some(DimValue::DimParam(s)) if is_identifier(s) => s.clone(),
        Some(DimValue::DimParam(s)) => quoted(s),
        None => "?".into(),
    });
    let dims: Vec<String> = dims.collect();
    Ok(if dims.is_empty() { elem.to_string() } else { format!("{elem}[{}]", dims.join(",")) })
}

/// [`type_text`] where there must be a type.
fn known_type(ty: Option<&TypeProto>) -> Result<String> {
    let ty = ty.filter(|t| t.value.is_some());
    type_text(ty.ok_or_else(|| Error::unsupported("an absent type, as text"))?)
}

fn type_text(ty: &TypeProto) -> Result<String> {
    let unknown = || Error::unsupported("a type of unknown elements, as text");
    let inner = |t: &Option<Box<TypeProto>>| known_type(t.as_deref());
    Ok(match &ty.value {
        None => String::new(),
        Some(Value::TensorType(t)) => shape(t.elem_type, t.shape.as_ref())?,
        Some(Value::SparseTensorType(t)) => format!("sparse_tensor({})", shape(t.elem_type, t.shape.as_ref())?),
        Some(Value::SequenceType(t)) => format!("seq({})", inner(&t.elem_type)?),
        Some(Value::OptionalType(t)) => format!("optional({})", inner(&t.elem_type)?),
        Some(Value::MapType(t)) => {
            let key = t.key_type.and_then(DType::from_onnx).ok_or_else(unknown)?;
            format!("map({key}, {})", inner(&t.value_type)?)
        }
        Some(Value::OpaqueType(t)) => {
            let dotted = |s: &str| s.split('.').map(name).collect::<Vec<_>>().join(".");
            match (t.domain(), t.name()) {
                ("", "") => "opaque()".into(),
                ("", only) | (only, "") => format!("opaque({})", dotted(only)),
                (domain, last) => format!("opaque({}, {})", dotted(domain), name(last)),
            }
        }
    })
}

fn declaration(v: &ValueInfoProto) -> Result<String> {
    let ty = v.r#type.as_ref().map_or(Ok(String::new()), type_text).context(|| format!("\"{}\"", v.name()))?;
    Ok(if ty.is_empty() { name(v.name()) } else { format!("{ty} {}", name(v.name())) })
}

fn declarations(list: &[ValueInfoProto]) -> Result<String> {
    Ok(list.iter().map(declaration).collect::<Result<Vec<_>>>()?.join(", "))
}

impl Printer {
    fn line(&mut self, text: &str) {
        self.out.push_str(&"    ".repeat(self.depth));
        self.out.push_str(text);
    }

    fn model(&mut self, m: &ModelProto) -> Result<()> {
        let text = |key: &str, value: &Option<String>| value.as_ref().map(|v| format!("{key}: {}", quoted(v)));
        let fields = [
            m.ir_version.map(|v| format!("ir_version: {v}")),
            (!m.opset_import.is_empty()).then(|| format!("opset_import: {}", opsets(&m.opset_import))),
            text("producer_name", &m.producer_name),
            text("producer_version", &m.producer_version),
            text("domain", &m.domain),
            m.model_version.map(|v| format!("model_version: {v}")),
            text("doc_string", &m.doc_string),
            (!m.metadata_props.is_empty()).then(|| format!("metadata_props: {}", entries(&m.metadata_props))),
        ];
        self.header(&fields);
        if let Some(g) = &m.graph {
            self.graph(g)?;
            self.out.push('\n');
        }
        m.functions.iter().try_for_each(|f| self.function(f))
    }

    fn header(&mut self, fields: &[Option<String>]) {
        let fields: Vec<String> = fields.iter().flatten().map(|f| format!("    {f}")).collect();
        if !fields.is_empty() {
            self.out.push_str(&format!("<\n{}\n>\n", fields.join(",\n")));
        }
    }

    fn graph(&mut self, g: &GraphProto) -> Result<()> {
        let (inputs, outputs) = (declarations(&g.input)?, declarations(&g.output)?);
        self.out.push_str(&format!("{} ({inputs}) => ({outputs})", name(g.name())));
        let dense: Result<Vec<TensorProto>> = g.sparse_initializer.iter().map(densified).collect();
        let mut separator = "\n";
        let indent = self.depth;
        self.depth = 0;
        let place = "    ".repeat(indent - 1);
        for t in g.initializer.iter().chain(&dense?) {
            self.out.push_str(&format!("{}{place}{}", separator, if separator == "\n" { "<   " } else { "    " }));
            self.tensor(t, true)?;
            separator = ",\n";
        }
        for v in &g.value_info {
            let opening = if separator == "\n" { "<   " } else { "    " };
            self.out.push_str(&format!("{separator}{place}{opening}{}", declaration(v)?));
            separator = ",\n";
        }
        self.depth = indent;
        if separator == ",\n" {
            self.out.push('>');
        }
        self.out.push('\n');
        self.nodes(&g.node)
    }

    fn nodes(&mut self, nodes: &[NodeProto]) -> Result<()> {
        let outer = "    ".repeat(self.depth - 1);
        self.out.push_str(&format!("{outer}{{\n"));
        for n in nodes {
            self.node(n).context(|| format!("{} node \"{}\"", n.op_type(), n.name()))?;
        }
        self.out.push_str(&format!("{outer}}}"));
        Ok(())
    }

    fn node(&mut self, n: &NodeProto) -> Result<()> {
        let label = if n.name().is_empty() { String::new() } else { format!("[{}] ", name(n.name())) };
        let part = |s: &str| if is_identifier(s) { s.to_string() } else { quoted(s) };
        let mut op: Vec<String> = match n.domain() {
            "" => vec![],
            domain => domain.split('.').map(part).collect(),
        };
        op.push(part(n.op_type()));
        let overload = if n.overload().is_empty() { String::new() } else { format!(":{}", part(n.overload())) };
        self.line(&format!("{label}{} = {}{overload}", names(&n.output), op.join(".")));
        let has_body = n.attribute.iter().any(|a| a.g.is_some() || !a.graphs.is_empty());
        let inputs = format!(" ({})", names(&n.input));
        if has_body {
            // The inputs come first, or they would stand below the bodies.
            self.out.push_str(&inputs);
            self.attributes(&n.attribute)?;
        } else {
            self.attributes(&n.attribute)?;
            self.out.push_str(&inputs);
        }
        self.out.push('\n');
        Ok(())
    }

    fn attributes(&mut self, list: &[AttributeProto]) -> Result<()> {
        for (k, a) in list.iter().enumerate() {
            self.out.push_str(if k == 0 { " <" } else { ", " });
            self.attribute(a).context(|| format!("attribute \"{}\"", a.name()))?;
        }
        if !list.is_empty() {
            self.out.push('>');
        }
        Ok(())
    }

    fn attribute(&mut self, a: &AttributeProto) -> Result<()> {
        let part = |s: &str| if is_identifier(s) { s.to_string() } else { quoted(s) };
        let ty = TYPES.iter().find(|row| row.1 == a.r#type()).map(|row| row.0);
        if let Some(of) = &a.ref_attr_name {
            let ty = ty.map_or(String::new(), |t| format!(": {t}"));
            self.out.push_str(&format!("{}{ty} = @{}", part(a.name()), part(of)));
            return Ok(());
        }
        let ty = ty.ok_or_else(|| Error::unsupported("an attribute without type, as text"))?;
        self.out.push_str(&format!("{}: {ty} = ", part(a.name())));
        let missing = || Error::unsupported("an attribute without a value of its type, as text");
        match a.r#type() {
            T::Int => self.out.push_str(&a.i().to_string()),
            T::Float => self.out.push_str(&format!("{:?}", a.f())),
            T::String => self.out.push_str(&utf8(a.s())?),
            T::Ints => self.out.push_str(&format!("{:?}", a.ints)),
            T::Floats => self.out.push_str(&format!("{:?}", a.floats)),
            T::Strings => {
                let all: Result<Vec<_>> = a.strings.iter().map(|s| utf8(s)).collect();
                self.out.push_str(&format!("[{}]", all?.join(", ")));
            }
            T::Tensor => self.tensor(a.t.as_ref().ok_or_else(missing)?, false)?,
            T::Tensors => self.list(&a.tensors, |p, t| p.tensor(t, false))?,
            T::Graph => self.body(a.g.as_ref().ok_or_else(missing)?)?,
            T::Graphs => self.list(&a.graphs, Self::body)?,
            T::TypeProto => {
                let text = known_type(a.tp.as_ref())?;
                self.out.push_str(&text);
            }
            T::TypeProtos => {
                let all: Result<Vec<_>> = a.type_protos.iter().map(|t| known_type(Some(t))).collect();
                self.out.push_str(&format!("[{}]", all?.join(", ")));
            }
            T::SparseTensor | T::SparseTensors | T::Undefined => {
                return Err(Error::unsupported("a sparse tensor in an attribute, as text"));
            }
        }
        Ok(())
    }

    fn list<I>(&mut self, items: &[I], each: impl Fn(&mut Self, &I) -> Result<()>) -> Result<()> {
        self.out.push('[');
        for (k, item) in items.iter().enumerate() {
            self.out.push_str(if k == 0 { "" } else { ", " });
            each(self, item)?;
        }
        self.out.push(']');
        Ok(())
    }

    fn body(&mut self, g: &GraphProto) -> Result<()> {
        // Put back, not counted down: a graph that cannot be printed stops anywhere.
        let outer = self.depth;
        self.depth = outer + 1;
        let done = self.graph(g);
        self.depth = outer;
        done
    }

    /// `type[dims] name = {elements}`; in attributes without the equals sign.
    fn tensor(&mut self, t: &TensorProto, initializer: bool) -> Result<()> {
        let (label, tensor) = tensor_from_proto(t.clone())?;
        let dims: Vec<String> = tensor.dims.iter().map(usize::to_string).collect();
        let dims = if dims.is_empty() { String::new() } else { format!("[{}]", dims.join(",")) };
        self.out.push_str(&format!("{}{dims}", tensor.dtype));
        if let Some(label) = label.as_ref().filter(|l| initializer || !l.is_empty()) {
            self.out.push_str(&format!(" {}", name(label)));
        }
        self.out.push_str(if initializer || label.is_some_and(|l| !l.is_empty()) { " = " } else { " " });
        if let TensorData::External(_) = tensor.data {
            self.out.push_str(&entries(&t.external_data));
            return Ok(());
        }
        let shown = self.limit.map_or(usize::MAX, |l| if tensor.len() > l { l } else { usize::MAX });
        let all = elements(&tensor, shown)?;
        self.out.push_str(&format!("{{{}", all.join(",")));
        if shown != usize::MAX {
            let left = tensor.len().saturating_sub(all.len());
            self.out.push_str(&format!(" # and {left} more\n{}", "    ".repeat(self.depth)));
        }
        self.out.push('}');
        Ok(())
    }

    fn function(&mut self, f: &FunctionProto) -> Result<()> {
        let text = |key: &str, value: &Option<String>| value.as_ref().map(|v| format!("{key}: {}", quoted(v)));
        self.header(&[
            text("domain", &f.domain),
            (!f.opset_import.is_empty()).then(|| format!("opset_import: {}", opsets(&f.opset_import))),
            text("overload", &f.overload),
            text("doc_string", &f.doc_string),
        ]);
        self.out.push_str(&name(f.name()));
        if !f.attribute.is_empty() || !f.attribute_proto.is_empty() {
            let separator = if f.attribute.is_empty() || f.attribute_proto.is_empty() { "" } else { ", " };
            self.out.push_str(&format!(" <{}{separator}", names(&f.attribute)));
            for (k, a) in f.attribute_proto.iter().enumerate() {
                self.out.push_str(if k == 0 { "" } else { ", " });
                self.attribute(a)?;
            }
            self.out.push('>');
        }
        self.out.push_str(&format!(" ({}) => ({})", names(&f.input), names(&f.output)));
        if !f.value_info.is_empty() {
            self.out.push_str(&format!(" <{}>", declarations(&f.value_info)?));
        }
        self.out.push('\n');
        self.nodes(&f.node).context(|| format!("function \"{}\"", f.name()))?;
        self.out.push('\n');
        Ok(())
    }
}

/// The first `most` elements as text, each one as [`super::parse`] reads it.
fn elements(t: &Tensor, most: usize) -> Result<Vec<String>> {
    use DType::*;
    if let TensorData::Strings(s) = &t.data {
        if s.len() != t.len() {
            let dims = &t.dims;
            return Err(Error::invalid(format!("a string tensor of shape {dims:?} has {} elements", s.len())));
        }
        return s.iter().take(most).map(|s| utf8(s)).collect();
    }
    let b = t.bytes()?;
    macro_rules! print {
        ($t:ty, $format:literal) => {{
            let chunks = b.as_chunks::<{ size_of::<$t>() }>().0.iter().take(most);
            chunks.map(|&x| format!($format, <$t>::from_le_bytes(x))).collect()
        }};
    }
    Ok(match t.dtype {
        F32 | C64 => print!(f32, "{:?}"),
        F64 | C128 => print!(f64, "{:?}"),
        I64 => print!(i64, "{}"),
        I32 => print!(i32, "{}"),
        I16 => print!(i16, "{}"),
        I8 => print!(i8, "{}"),
        U64 => print!(u64, "{}"),
        U32 => print!(u32, "{}"),
        // Half floats as bit patterns, which every parser of the syntax reads; packed types as their bytes.
        U16 | F16 | BF16 => print!(u16, "{}"),
        U8 | Bool | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 => print!(u8, "{}"),
        I4 | U4 | F4E2M1 | I2 | U2 => print!(u8, "{}"),
        String => vec![],
    })
}

fn densified(s: &crate::proto::SparseTensorProto) -> Result<TensorProto> {
    let (label, sparse) = crate::io::decode::sparse_from_proto(s.clone())?;
    let data = sparse.bytes()?.into_owned();
    Ok(crate::io::tensor_to_proto(&Tensor::raw(sparse.dtype, &sparse.dims, data), label))
}
