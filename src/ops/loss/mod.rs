//! Training losses.

pub mod cross_entropy;
