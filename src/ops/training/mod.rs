//! Optimizers.

pub mod optimizer;
