//! What a rewrite cost: both models' outputs compared, reported, and held against bounds.

mod agree;
mod compare;
mod gate;
mod metrics;
mod report;

pub use agree::{Agreement, Reference};
pub use compare::compare;
pub use gate::Gate;
pub use metrics::{Accuracy, Comparison, Element, OutputDrift};
pub use report::{Change, DriftReport};
