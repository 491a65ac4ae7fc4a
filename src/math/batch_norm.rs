//! Batch normalization over `[samples, channels, elements]`.

use super::parallel::dot;
use super::{Real, sum};
use rayon::prelude::*;

/// Sizes: samples, channels, elements per plane.
pub type Planes = (usize, usize, usize);

/// Mean and variance (divided by the count) of each channel.
pub fn channel_moments<T: Real>(x: &[T], (n, c, l): Planes) -> (Vec<T>, Vec<T>) {
    let count = T::of((n * l).max(1) as f64);
    let channel = |k: usize| {
        let planes = || (0..n).map(|i| &x[(i * c + k) * l..][..l]);
        let mean = planes().map(sum).sum::<T>() / count;
        let square = |p: &[T]| p.iter().fold(T::zero(), |s, &x| s + (x - mean) * (x - mean));
        (mean, planes().map(square).sum::<T>() / count)
    };
    (0..c).into_par_iter().map(channel).unzip()
}

/// `y = factor[c] * x + shift[c]`.
pub fn channel_affine<T: Real>(x: &[T], (_, c, l): Planes, factor: &[T], shift: &[T]) -> Vec<T> {
    let mut y = vec![T::zero(); x.len()];
    if x.is_empty() {
        return y;
    }
    y.par_chunks_mut(c * l).zip(x.par_chunks(c * l)).for_each(|(y, x)| {
        for (k, (y, x)) in y.chunks_mut(l).zip(x.chunks(l)).enumerate() {
            let (a, b) = (factor[k], shift[k]);
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = a * x + b);
        }
    });
    y
}

/// Per channel: the sum of `dy`, and of `dy * (x - mean)`.
pub fn channel_sums<T: Real>(x: &[T], dy: &[T], (n, c, l): Planes, mean: &[T]) -> (Vec<T>, Vec<T>) {
    let channel = |k: usize| {
        let mut sums = (T::zero(), T::zero());
        for i in 0..n {
            let at = (i * c + k) * l;
            let (x, dy) = (&x[at..][..l], &dy[at..][..l]);
            let total = sum(dy);
            sums.0 += total;
            sums.1 += dot(dy, x) - mean[k] * total;
        }
        sums
    };
    (0..c).into_par_iter().map(channel).unzip()
}

/// `dx = a[c] * dy + b[c] * x + shift[c]`.
pub fn channel_mix<T: Real>(x: &[T], dy: &[T], (_, c, l): Planes, a: &[T], b: &[T], shift: &[T]) -> Vec<T> {
    let mut dx = vec![T::zero(); x.len()];
    if x.is_empty() {
        return dx;
    }
    let samples = x.par_chunks(c * l).zip(dy.par_chunks(c * l));
    dx.par_chunks_mut(c * l).zip(samples).for_each(|(dx, (x, dy))| {
        let planes = x.chunks(l).zip(dy.chunks(l));
        for (k, (dx, (x, dy))) in dx.chunks_mut(l).zip(planes).enumerate() {
            let (a, b, s) = (a[k], b[k], shift[k]);
            dx.iter_mut().zip(x.iter().zip(dy)).for_each(|(dx, (&x, &dy))| *dx = a * dy + b * x + s);
        }
    });
    dx
}
