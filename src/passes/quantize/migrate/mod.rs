//! Moves outliers among the channels of a layer's input into its weight, where each output channel has a scale of its own.

mod strength;

pub use strength::Migrate;
