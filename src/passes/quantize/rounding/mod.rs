//! From float weights to codes: which levels, and how to choose among them. Numbers only; no graph is seen here.

mod gptq;
mod grid;
mod layer;
mod objective;
mod refine;
mod search;

pub use gptq::gptq;
pub use grid::{Grid, Levels, Partition, Rounded, Rows};
pub use layer::{Evidence, bias_correction, round, unrows};
pub use objective::{DAMPING, Objective};
pub use search::{fit, nearest};
