//! Kernels over plain slices, for f32 and f64: what gradients and refits compute with. No IR types here.
//!
//! Results do not depend on the number of threads: work is divided by sizes alone, and partial sums are added in order.

mod array;
mod axis;
mod batch_norm;
mod broadcast;
mod cholesky;
mod conv;
mod conv_geometry;
mod conv_shifted;
mod depthwise;
mod gemm;
mod norm;
mod parallel;
mod pool;
mod real;
mod recurrent;
mod reduce;
mod softmax;
mod square;
mod tile;
mod unfold;
mod view;

pub use array::Array;
pub use axis::{Table, along_axis, along_axis_backward};
pub use batch_norm::{channel_affine, channel_mix, channel_moments, channel_sums};
pub use broadcast::{binary, broadcast_dims, reduce_to};
pub use cholesky::{cholesky, inverse, solve};
pub use conv::{conv_backward, conv_forward};
pub use conv_geometry::ConvGeometry;
pub use gemm::{Layout, gemm, matmul};
pub use norm::{Moments, moments, normalize_backward};
pub use parallel::{elementwise, elementwise2, sum};
pub use pool::{PoolGeometry, average_backward, average_forward, max_backward, max_forward};
pub use real::Real;
pub use recurrent::{Cell, CellGrads, CellSaved, Layer, cell_backward, cell_forward};
pub use reduce::{Blocks, merge_axes};
pub use softmax::{log_softmax, log_softmax_backward, softmax, softmax_backward};
pub use square::add_square;
pub use unfold::{Padding, Patches, Unfold};
pub use view::{View, row_strides};
