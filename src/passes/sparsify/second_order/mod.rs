//! Zeros by second-order information: which weights go, by what the data say it costs, and what the others become.

mod blocked;
mod choose;
mod greedy;
mod layer;
mod polish;
mod problem;
mod shape;

pub use choose::{Curve, Quota, share_of};
pub use greedy::Removal;
pub use layer::{FitLayer, zero_rest};
pub use problem::Problem;
pub use shape::Shape;
