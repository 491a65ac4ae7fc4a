//! Comparisons and selection.

pub mod compare;
pub mod select;
