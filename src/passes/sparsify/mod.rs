//! Unstructured and N:M sparsity: single weights become zero, and what is mostly zero is stored so.

mod fold;
mod layers;
mod magnitude;
mod options;
pub mod second_order;
mod store;
mod take;

pub use fold::{EliminateZeroChannels, FoldConstantChannels};
pub use layers::{SparseLayer, layers};
pub use magnitude::Sparsify;
pub use options::{Block, Goal, Measure, Pattern, SparsifyOptions};
pub use store::{Densify, StoreSparse};
pub use take::TakeWeights;
