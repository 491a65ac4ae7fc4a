//! The quantized family.

pub mod conv_integer;
pub mod dequantize_linear;
pub mod dynamic_quantize_linear;
pub mod matmul_integer;
pub mod qgemm;
pub mod qlinear_concat;
pub mod qlinear_conv;
pub mod qlinear_elementwise;
pub mod qlinear_matmul;
pub mod qlinear_pool;
pub mod quantize_linear;
