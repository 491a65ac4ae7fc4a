//! Semantic traps: small models on which a rewriting that looks right is wrong. Each one is simplified by all rules and
//! executed before and after, and the nodes that must survive are counted.

mod judge;

mod elementwise;
mod neural;
mod shapes;
mod structure;
