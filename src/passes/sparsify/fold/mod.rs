//! Zeros that make whole channels superfluous.

mod constants;
mod known;
mod zero_channels;

pub use constants::FoldConstantChannels;
pub use zero_channels::EliminateZeroChannels;
