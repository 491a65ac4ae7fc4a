//! Arithmetic.

pub mod arithmetic;
pub mod gemm;
pub mod matmul;
pub mod unary;
