//! Comparisons and selection.

pub mod compare;
pub mod predicate;
pub mod select;
