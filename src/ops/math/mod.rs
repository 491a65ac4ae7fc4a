//! Arithmetic.

pub mod arithmetic;
pub mod einsum;
pub mod gemm;
pub mod matmul;
pub mod unary;
