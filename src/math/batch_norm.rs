//! Batch normalization over `[samples, channels, elements]`.

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

/// Per channel: the sum of `dy`, and of `dy * (x - mean)`. Both are small differences of large numbers, so they are added up
/// in f64.
pub fn channel_sums<T: Real>(x: &[T], dy: &[T], (n, c, l): Planes, mean: &[T]) -> (Vec<T>, Vec<T>) {
    let channel = |k: usize| {
        let (mut total, mut along, mean) = ([0.0f64; 4], [0.0f64; 4], mean[k].wide());
        for i in 0..n {
            let at = (i * c + k) * l;
            let (x4, x_rest) = x[at..at + l].as_chunks::<4>();
            let (d4, d_rest) = dy[at..at + l].as_chunks::<4>();
            for (x, d) in x4.iter().zip(d4) {
                let lanes = total.iter_mut().zip(&mut along).zip(x.iter().zip(d));
                lanes.for_each(|((total, along), (x, d))| {
                    *total += d.wide();
                    *along += d.wide() * (x.wide() - mean);
                });
            }
            for (x, d) in x_rest.iter().zip(d_rest) {
                total[0] += d.wide();
                along[0] += d.wide() * (x.wide() - mean);
            }
        }
        (T::of(total.iter().sum()), T::of(along.iter().sum()))
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
