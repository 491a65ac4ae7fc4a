//! Products of a matrix with its own transpose.

use super::gemm::{Layout, gemm};
use rayon::prelude::*;

/// Rows of the result that are computed together.
const BAND: usize = 128;

/// Adds `x * x^T` to the lower triangle of `h` (`k x k`, row-major), where `x` is `k x n`. Products are summed in f32, so
/// `n` should not be many thousands; the sum goes on in f64.
///
/// Bands of rows run in parallel, each in one fixed order.
pub fn add_square(h: &mut [f64], (k, n): (usize, usize), (x, layout): (&[f32], Layout)) {
    if k == 0 || n == 0 {
        return;
    }
    let transposed = (layout.1, layout.0);
    h.par_chunks_mut(BAND * k).enumerate().for_each(|(band, h)| {
        let (start, rows) = (band * BAND, h.len() / k);
        let columns = start + rows;
        let mut part = vec![0f32; rows * columns];
        let a = (&x[start * layout.0..], layout);
        gemm((rows, n, columns), 1.0, a, (x, transposed), 0.0, (&mut part, (columns, 1)));
        for (to, from) in h.chunks_mut(k).zip(part.chunks(columns)) {
            to.iter_mut().zip(from).for_each(|(h, &p)| *h += f64::from(p));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_triangle_is_the_product() {
        let (k, n) = (150, 7);
        let x: Vec<f32> = (0..k * n).map(|i| ((i * 13) % 11) as f32 - 5.0).collect();
        let mut by_rows = vec![1.0; k * k];
        add_square(&mut by_rows, (k, n), (&x, (n, 1)));
        let mut turned = vec![0f32; k * n];
        (0..k * n).for_each(|i| turned[i % n * k + i / n] = x[i]);
        let mut by_columns = vec![1.0; k * k];
        add_square(&mut by_columns, (k, n), (&turned, (1, k)));
        for i in 0..k {
            for j in 0..=i {
                let want: f32 = 1.0 + (0..n).map(|p| x[i * n + p] * x[j * n + p]).sum::<f32>();
                assert_eq!((by_rows[i * k + j], by_columns[i * k + j]), (want.into(), want.into()));
            }
        }
    }
}
