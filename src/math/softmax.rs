//! Softmax and its logarithm over rows.

use super::parallel::{CHUNK, dot};
use super::{Real, sum};
use rayon::prelude::*;

fn by_rows<T: Real>(x: &[T], n: usize, work: impl Fn(&[T], &mut [T]) + Sync) -> Vec<T> {
    let mut out = vec![T::zero(); x.len()];
    if x.is_empty() {
        return out;
    }
    let rows = (CHUNK / n).max(1);
    out.par_chunks_mut(rows * n).zip(x.par_chunks(rows * n)).for_each(|(out, x)| {
        out.chunks_mut(n).zip(x.chunks(n)).for_each(|(out, x)| work(x, out));
    });
    out
}

fn by_rows2<T: Real>(a: &[T], b: &[T], n: usize, work: impl Fn(&[T], &[T], &mut [T]) + Sync) -> Vec<T> {
    let mut out = vec![T::zero(); a.len()];
    if a.is_empty() {
        return out;
    }
    let rows = (CHUNK / n).max(1);
    let pieces = a.par_chunks(rows * n).zip(b.par_chunks(rows * n));
    out.par_chunks_mut(rows * n).zip(pieces).for_each(|(out, (a, b))| {
        out.chunks_mut(n).zip(a.chunks(n).zip(b.chunks(n))).for_each(|(out, (a, b))| work(a, b, out));
    });
    out
}

fn largest<T: Real>(x: &[T]) -> T {
    x.iter().fold(T::neg_infinity(), |m, &x| m.max(x))
}

/// Softmax of rows of `n`.
pub fn softmax<T: Real>(x: &[T], n: usize) -> Vec<T> {
    by_rows(x, n, |x, y| {
        let top = largest(x);
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x - top).exp());
        let total = sum(y);
        y.iter_mut().for_each(|y| *y /= total);
    })
}

/// Logarithm of the softmax of rows of `n`.
pub fn log_softmax<T: Real>(x: &[T], n: usize) -> Vec<T> {
    by_rows(x, n, |x, y| {
        let top = largest(x);
        let total: T = x.iter().map(|&x| (x - top).exp()).sum();
        let shift = top + total.ln();
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = x - shift);
    })
}

/// Gradient of the input from softmax `y` and the gradient of `y`.
pub fn softmax_backward<T: Real>(y: &[T], dy: &[T], n: usize) -> Vec<T> {
    by_rows2(y, dy, n, |y, dy, dx| {
        let mean = dot(y, dy);
        dx.iter_mut().zip(y.iter().zip(dy)).for_each(|(dx, (&y, &dy))| *dx = y * (dy - mean));
    })
}

/// Gradient of the input from log-softmax `y` and the gradient of `y`.
pub fn log_softmax_backward<T: Real>(y: &[T], dy: &[T], n: usize) -> Vec<T> {
    by_rows2(y, dy, n, |y, dy, dx| {
        let total = sum(dy);
        dx.iter_mut().zip(y.iter().zip(dy)).for_each(|(dx, (&y, &dy))| *dx = dy - y.exp() * total);
    })
}
