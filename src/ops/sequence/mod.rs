//! Sequences and optionals.

pub mod at;
pub mod concat;
pub mod construct;
pub mod edit;
pub mod empty;
pub mod length;
pub mod map;
pub mod optional;
pub mod split;
