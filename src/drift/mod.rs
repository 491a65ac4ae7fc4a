//! What a rewrite cost: both models' outputs compared, reported, and held against bounds.

mod gate;
mod metrics;
mod report;

pub use gate::Gate;
pub use metrics::{Accuracy, Comparison, Element, OutputDrift};
pub use report::{Change, DriftReport, op_histogram};
