//! Kernels over plain slices, for f32 and f64: what gradients and refits compute with. No IR types here.
//!
//! Results do not depend on the number of threads: work is divided by sizes alone, and partial sums are added in order.

mod cholesky;
mod gemm;
mod real;
mod square;
mod unfold;

pub use cholesky::{cholesky, solve};
pub use gemm::{Layout, gemm, matmul};
pub use real::Real;
pub use square::add_square;
pub use unfold::{Padding, Patches, Unfold};
