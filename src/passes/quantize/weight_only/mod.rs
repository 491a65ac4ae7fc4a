//! Weights in few bits, products in float; and tables of embeddings, which static quantization stores so too.

mod coverage;
mod emit;
mod pack;
mod pass;
mod plan;
mod product;
mod site;
mod table;

pub use pack::{nibbles, pack};
pub use pass::WriteWeights;
pub use plan::{GramKey, PlannedWeight, Reached, WeightPlan};
