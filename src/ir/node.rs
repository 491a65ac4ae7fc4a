//! Nodes, their operators and attributes.

use super::{Graph, Tensor};
use crate::proto;
use std::fmt;
use std::sync::Arc;

/// Which operator: domain, type, overload. The default domain `ai.onnx` is always spelled `""` here.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct OpId {
    /// `""` for the standard's own, else for example `com.microsoft`.
    pub domain: Arc<str>,
    /// For example `Conv`.
    pub op_type: Arc<str>,
    /// Distinguishes functions of one name; almost always empty.
    pub overload: Arc<str>,
}

/// Domain of ONNX Runtime's contributed operators.
pub const MICROSOFT: &str = "com.microsoft";

impl OpId {
    /// An operator of the standard's default domain.
    pub fn onnx(op_type: &str) -> Self {
        Self::new("", op_type)
    }

    /// An operator of ONNX Runtime's domain.
    pub fn microsoft(op_type: &str) -> Self {
        Self::new(MICROSOFT, op_type)
    }

    /// An operator of any domain.
    pub fn new(domain: &str, op_type: &str) -> Self {
        Self { domain: domain.into(), op_type: op_type.into(), overload: "".into() }
    }

    /// Whether this is the operator `op_type` of the default domain.
    pub fn is(&self, op_type: &str) -> bool {
        self.domain.is_empty() && &*self.op_type == op_type
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.domain.is_empty() {
            write!(f, "{}.", self.domain)?;
        }
        f.write_str(&self.op_type)?;
        if !self.overload.is_empty() {
            write!(f, ":{}", self.overload)?;
        }
        Ok(())
    }
}

/// An operation. Its inputs and outputs are edges of the [`Graph`].
#[derive(Clone, Debug)]
pub struct Node {
    /// Name; may be empty, need not be unique.
    pub name: Arc<str>,
    /// Operator.
    pub op: OpId,
    /// Attributes in file order.
    pub attributes: Vec<Attribute>,
    /// Position in the file that the node came from, or that of the node it replaced: breaks ties when ordering.
    pub rank: u32,
    /// Number of input slots, counting absent optional ones.
    pub input_slots: u32,
    /// Number of output slots, counting absent optional ones.
    pub output_slots: u32,
    /// Fields that no pass reads, kept as read.
    pub shell: Option<Box<NodeShell>>,
}

/// The fields of a `NodeProto` that no pass reads.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct NodeShell {
    pub doc_string: Option<String>,
    pub metadata_props: Vec<proto::StringStringEntryProto>,
    pub device_configurations: Vec<proto::NodeDeviceConfigurationProto>,
    /// Fields written out although they hold the default (encoding gives an equal message).
    pub empty_name: bool,
    /// The domain as written, where it was spelled `""` or `ai.onnx`.
    pub domain: Option<String>,
    pub empty_overload: bool,
}

impl Node {
    /// A node without a name and with no attributes.
    pub fn new(op: OpId) -> Self {
        let (name, attributes) = ("".into(), vec![]);
        Self { name, op, attributes, rank: 0, input_slots: 0, output_slots: 0, shell: None }
    }

    /// The attribute with this name.
    pub fn attribute(&self, name: &str) -> Option<&AttributeValue> {
        self.attributes.iter().find(|a| &*a.name == name).map(|a| &a.value)
    }

    /// An integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attribute(name)? {
            AttributeValue::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// A float attribute.
    pub fn float(&self, name: &str) -> Option<f32> {
        match self.attribute(name)? {
            AttributeValue::Float(x) => Some(*x),
            _ => None,
        }
    }

    /// A list of integers.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attribute(name)? {
            AttributeValue::Ints(v) => Some(v),
            _ => None,
        }
    }

    /// A string attribute that is valid UTF-8.
    pub fn string(&self, name: &str) -> Option<&str> {
        match self.attribute(name)? {
            AttributeValue::String(s) => std::str::from_utf8(s).ok(),
            _ => None,
        }
    }

    /// A tensor attribute.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        match self.attribute(name)? {
            AttributeValue::Tensor(t) => Some(t),
            _ => None,
        }
    }

    /// Sets or replaces an attribute.
    pub fn set(&mut self, name: &str, value: AttributeValue) {
        match self.attributes.iter_mut().find(|a| &*a.name == name) {
            Some(a) => *a = Attribute::new(name, value),
            None => self.attributes.push(Attribute::new(name, value)),
        }
    }

    /// The bodies of If, Loop, Scan and the like, in attribute order.
    pub fn bodies(&self) -> impl Iterator<Item = &Graph> {
        self.attributes.iter().flat_map(|a| match &a.value {
            AttributeValue::Graph(g) => std::slice::from_ref(&**g),
            AttributeValue::Graphs(gs) => gs,
            _ => &[],
        })
    }

    /// The body that is this attribute.
    pub fn body(&self, name: &str) -> Option<&Graph> {
        match self.attribute(name)? {
            AttributeValue::Graph(g) => Some(g),
            _ => None,
        }
    }

    /// The bodies, to change.
    pub(crate) fn bodies_mut(&mut self) -> impl Iterator<Item = &mut Graph> {
        self.attributes.iter_mut().flat_map(|a| match &mut a.value {
            AttributeValue::Graph(g) => std::slice::from_mut(&mut **g),
            AttributeValue::Graphs(gs) => gs,
            _ => &mut [],
        })
    }

    /// `node "conv1" (Conv)`, for messages.
    pub fn label(&self) -> String {
        if self.name.is_empty() {
            format!("unnamed {} node", self.op)
        } else {
            format!("node \"{}\" ({})", self.name, self.op)
        }
    }
}

/// A named attribute.
#[derive(Clone, Debug)]
pub struct Attribute {
    /// Name.
    pub name: Arc<str>,
    /// Value.
    pub value: AttributeValue,
    /// Documentation, kept as read.
    pub doc_string: Option<String>,
    /// `false` where the file left `type` unset (before IR version 2).
    pub typed: bool,
    /// Whether the file left the field of a scalar unset, as proto3 writers spell 0.
    pub unset: bool,
}

impl Attribute {
    /// An attribute without documentation.
    pub fn new(name: &str, value: AttributeValue) -> Self {
        Self { name: name.into(), value, doc_string: None, typed: true, unset: false }
    }
}

/// Value of an attribute.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum AttributeValue {
    Float(f32),
    Int(i64),
    String(Vec<u8>),
    Tensor(Tensor),
    /// A body (If, Loop, Scan), parsed so that what it captures stays alive.
    Graph(Box<Graph>),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Strings(Vec<Vec<u8>>),
    Tensors(Vec<Tensor>),
    Graphs(Vec<Graph>),
    /// A reference to an attribute of the enclosing function, and every kind no pass reads (types, sparse tensors): the whole attribute as read.
    Verbatim(Box<proto::AttributeProto>),
}

impl From<i64> for AttributeValue {
    fn from(x: i64) -> Self {
        Self::Int(x)
    }
}

impl From<f32> for AttributeValue {
    fn from(x: f32) -> Self {
        Self::Float(x)
    }
}

impl From<&[i64]> for AttributeValue {
    fn from(x: &[i64]) -> Self {
        Self::Ints(x.to_vec())
    }
}

impl From<Vec<i64>> for AttributeValue {
    fn from(x: Vec<i64>) -> Self {
        Self::Ints(x)
    }
}

impl From<&str> for AttributeValue {
    fn from(x: &str) -> Self {
        Self::String(x.as_bytes().to_vec())
    }
}

impl From<Tensor> for AttributeValue {
    fn from(x: Tensor) -> Self {
        Self::Tensor(x)
    }
}
