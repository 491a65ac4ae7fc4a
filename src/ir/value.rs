//! Values: everything that has a name in a graph.

use super::{Tensor, Type};
use crate::proto;
use std::sync::Arc;

/// A value: a graph input, an initializer, a node's output, or an outer value that a body uses.
#[derive(Clone, Debug)]
pub struct Value {
    /// Unique within its graph.
    pub name: Arc<str>,
    /// Type, declared or inferred.
    pub ty: Option<Type>,
    /// The constant, where the value is an initializer. It may at the same time be a graph input: then it is only a
    /// default that the caller may override, and no pass may rely on it: ask [`super::Graph::constant`].
    pub init: Option<Tensor>,
    /// How the file declared it.
    pub shell: Option<Box<ValueShell>>,
}

/// The `ValueInfoProto`s of a value, kept so that encoding an untouched model gives an equal message.
#[derive(Clone, Debug, Default)]
pub struct ValueShell {
    /// As a graph input.
    pub input: Option<proto::ValueInfoProto>,
    /// As a graph output.
    pub output: Option<proto::ValueInfoProto>,
    /// In the `value_info` list, with its position there.
    pub listed: Option<(u32, proto::ValueInfoProto)>,
}

impl Value {
    /// A value of which only the name is known.
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), ty: None, init: None, shell: None }
    }
}
