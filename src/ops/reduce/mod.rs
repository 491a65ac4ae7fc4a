//! Reductions.

pub mod arg;
pub mod reduction;
