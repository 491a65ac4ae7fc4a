//! Arithmetic.

pub mod arithmetic;
pub mod bit_cast;
pub mod det;
pub mod einsum;
pub mod gemm;
pub mod matmul;
pub mod unary;
