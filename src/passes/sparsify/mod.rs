//! Unstructured and N:M sparsity: single weights become zero, and what is mostly zero is stored so.

mod layers;
mod magnitude;
mod options;
mod store;

pub use layers::{SparseLayer, layers};
pub use magnitude::Sparsify;
pub use options::{Block, Goal, Measure, Pattern, SparsifyOptions};
pub use store::{Densify, StoreSparse};
