//! The intermediate representation: a bipartite graph of nodes and values.

mod dead;
mod dtype;
mod edges;
pub(crate) mod edit;
mod graph;
mod inline;
mod lift;
mod model;
mod names;
mod node;
mod order;
#[cfg(test)]
mod scale_tests;
mod sparse;
mod tensor;
mod types;
mod value;
mod verify;

pub use dtype::DType;
pub use graph::{Graph, GraphShell, NodeId, Port, Use, ValueId};
pub use model::{Model, NEWEST_OPSET, canonical_domain};
pub use node::{Attribute, AttributeValue, MICROSOFT, Node, NodeShell, OpId};
pub use tensor::{External, Sparse, Tensor, TensorData, TensorExtra};
pub use types::{Dim, TensorType, Type};
pub use value::{Value, ValueShell};
