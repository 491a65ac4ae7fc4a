//! Elementwise work and sums on all threads, divided by sizes alone.

use super::Real;
use rayon::prelude::*;

/// Elements of one piece of work.
pub(super) const CHUNK: usize = 1 << 15;

/// `f` of every element.
pub fn elementwise<T: Real>(x: &[T], f: impl Fn(T) -> T + Sync) -> Vec<T> {
    if x.len() <= CHUNK {
        return x.iter().map(|&x| f(x)).collect();
    }
    let mut out = vec![T::zero(); x.len()];
    let chunks = out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK));
    chunks.for_each(|(out, x)| out.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x)));
    out
}

/// `f` of every pair of elements.
pub fn elementwise2<T: Real>(a: &[T], b: &[T], f: impl Fn(T, T) -> T + Sync) -> Vec<T> {
    if a.len() <= CHUNK {
        return a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect();
    }
    let mut out = vec![T::zero(); a.len()];
    let chunks = out.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK)));
    chunks.for_each(|(out, (a, b))| out.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (&a, &b))| *y = f(a, b)));
    out
}

/// `f(a, b)` for every pair of elements, where `f` changes `a`.
pub(crate) fn update<T: Real>(a: &mut [T], b: &[T], f: impl Fn(&mut T, T) + Sync) {
    if a.len() <= CHUNK {
        return a.iter_mut().zip(b).for_each(|(a, &b)| f(a, b));
    }
    let chunks = a.par_chunks_mut(CHUNK).zip(b.par_chunks(CHUNK));
    chunks.for_each(|(a, b)| a.iter_mut().zip(b).for_each(|(a, &b)| f(a, b)));
}

/// Sum of the elements, in eight lanes that a vector unit can hold.
pub fn sum<T: Real>(x: &[T]) -> T {
    fold(x.iter().copied(), x.len())
}

/// Sum of products.
pub(super) fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    let mut lanes = [T::zero(); 8];
    for (a, b) in a8.iter().zip(b8) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (&a, &b))| *lane += a * b);
    }
    a_rest.iter().zip(b_rest).fold(join(lanes), |s, (&a, &b)| s + a * b)
}

fn fold<T: Real>(mut x: impl Iterator<Item = T>, len: usize) -> T {
    let mut lanes = [T::zero(); 8];
    for _ in 0..len / 8 {
        for lane in &mut lanes {
            *lane += x.next().unwrap_or_default();
        }
    }
    x.fold(join(lanes), |s, x| s + x)
}

fn join<T: Real>([a, b, c, d, e, f, g, h]: [T; 8]) -> T {
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// `y += factor * x`.
pub(super) fn axpy<T: Real>(y: &mut [T], factor: T, x: &[T]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y += factor * x);
}
