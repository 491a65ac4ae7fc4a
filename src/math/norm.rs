//! Normalization of rows: mean and deviation, and the gradient through both.

use super::parallel::dot;
use super::{Real, sum};
use rayon::prelude::*;

/// Mean and reciprocal deviation of each row.
pub struct Moments<T> {
    /// Means; all 0 where the mean is not subtracted.
    pub mean: Vec<T>,
    /// Variances (mean squares, where the mean is not subtracted), divided by the number of elements.
    pub variance: Vec<T>,
    /// `1 / sqrt(variance + epsilon)`.
    pub scale: Vec<T>,
}

/// Rows of one piece of work.
fn rows_per_piece(n: usize) -> usize {
    ((1 << 14) / n.max(1)).max(1)
}

/// Moments of rows of `n`; `centred`: whether the mean counts (LayerNormalization) or not (RMSNormalization).
pub fn moments<T: Real>(x: &[T], n: usize, epsilon: T, centred: bool) -> Moments<T> {
    let (count, per) = (T::of(n as f64), rows_per_piece(n));
    let row = |x: &[T]| {
        let mean = if centred { sum(x) / count } else { T::zero() };
        let square: T = x.iter().map(|&x| (x - mean) * (x - mean)).sum();
        (mean, square / count)
    };
    let found: Vec<(T, T)> = match n {
        0 => vec![],
        _ => x.par_chunks(per * n).flat_map_iter(|x| x.chunks(n).map(row).collect::<Vec<_>>()).collect(),
    };
    let (mean, variance): (Vec<T>, Vec<T>) = found.into_iter().unzip();
    let scale = variance.iter().map(|&v| T::one() / (v + epsilon).sqrt()).collect();
    Moments { mean, variance, scale }
}

impl<T: Real> Moments<T> {
    /// The normalized rows.
    pub fn apply(&self, x: &[T], n: usize) -> Vec<T> {
        let mut out = vec![T::zero(); x.len()];
        if n == 0 {
            return out;
        }
        let per = rows_per_piece(n);
        out.par_chunks_mut(per * n).zip(x.par_chunks(per * n)).enumerate().for_each(|(piece, (out, x))| {
            for (k, (out, x)) in out.chunks_mut(n).zip(x.chunks(n)).enumerate() {
                let (mean, scale) = (self.mean[piece * per + k], self.scale[piece * per + k]);
                out.iter_mut().zip(x).for_each(|(y, &x)| *y = (x - mean) * scale);
            }
        });
        out
    }
}

/// Gradient of the rows from that of the normalized rows `normal`, where the moments are the rows' own.
pub fn normalize_backward<T: Real>(normal: &[T], dn: &[T], m: &Moments<T>, n: usize, centred: bool) -> Vec<T> {
    let mut dx = vec![T::zero(); normal.len()];
    if n == 0 {
        return dx;
    }
    let (count, per) = (T::of(n as f64), rows_per_piece(n));
    let pieces = normal.par_chunks(per * n).zip(dn.par_chunks(per * n));
    dx.par_chunks_mut(per * n).zip(pieces).enumerate().for_each(|(piece, (dx, (normal, dn)))| {
        let rows = normal.chunks(n).zip(dn.chunks(n));
        for (k, (dx, (normal, dn))) in dx.chunks_mut(n).zip(rows).enumerate() {
            let scale = m.scale[piece * per + k];
            let mean = if centred { sum(dn) / count } else { T::zero() };
            let along = dot(dn, normal) / count;
            let elements = dx.iter_mut().zip(normal.iter().zip(dn));
            elements.for_each(|(dx, (&normal, &dn))| *dx = scale * (dn - mean - normal * along));
        }
    });
    dx
}
