//! Control flow.

pub mod bodies;
