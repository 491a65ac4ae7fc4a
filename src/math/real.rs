//! The element types that kernels are written for.

use num_traits::Float;
use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{AddAssign, DivAssign, MulAssign, SubAssign};

/// f32 or f64.
pub trait Real:
    Float + AddAssign + SubAssign + MulAssign + DivAssign + Sum + Default + Debug + Send + Sync + 'static
{
    /// The nearest value.
    fn of(x: f64) -> Self;

    /// The same value in f64.
    fn wide(self) -> f64;

    /// The error function.
    fn erf(self) -> Self;

    /// `c = alpha * a * b + beta * c`, strides in elements.
    ///
    /// # Safety
    /// Every element that sizes and strides name lies in its buffer, and those of `c` are distinct and aliased by no other.
    unsafe fn raw_gemm(
        sizes: (usize, usize, usize),
        alpha: Self,
        a: (*const Self, isize, isize),
        b: (*const Self, isize, isize),
        beta: Self,
        c: (*mut Self, isize, isize),
    );
}

macro_rules! real {
    ($t:ty, $gemm:path, $erf:path) => {
        impl Real for $t {
            fn of(x: f64) -> Self {
                x as $t
            }

            fn wide(self) -> f64 {
                f64::from(self)
            }

            fn erf(self) -> Self {
                $erf(self)
            }

            unsafe fn raw_gemm(
                (m, k, n): (usize, usize, usize),
                alpha: Self,
                a: (*const Self, isize, isize),
                b: (*const Self, isize, isize),
                beta: Self,
                c: (*mut Self, isize, isize),
            ) {
                // SAFETY: passed on to the caller.
                unsafe { $gemm(m, k, n, alpha, a.0, a.1, a.2, b.0, b.1, b.2, beta, c.0, c.1, c.2) }
            }
        }
    };
}

real!(f32, matrixmultiply::sgemm, libm::erff);
real!(f64, matrixmultiply::dgemm, libm::erf);
