//! Cholesky factorization, in blocks so that most of the work is matrix products.

use super::gemm::{gemm, matmul};
use rayon::prelude::*;

/// Columns that are factored together.
const BLOCK: usize = 64;

/// Rows of one piece of work.
const BAND: usize = 64;

/// Replaces the lower triangle of the symmetric `a` (`n x n`, row-major; what lies above the diagonal is not read) by
/// `l` with `a = l * l^T`, and the rest by zeros. `false` where `a` is not positive definite; `a` is then spoilt.
pub fn cholesky(a: &mut [f64], n: usize) -> bool {
    for start in (0..n).step_by(BLOCK) {
        let end = (start + BLOCK).min(n);
        let width = end - start;
        if !diagonal(a, n, start..end) {
            return false;
        }
        let (top, below) = a.split_at_mut(end * n);
        let block = &top[start * n..];
        // Rows below: solve `row * l^T = a`.
        below.par_chunks_mut(n * BAND).for_each(|rows| {
            for row in rows.chunks_mut(n) {
                for j in 0..width {
                    let l = &block[j * n + start..][..=j];
                    let sum: f64 = l[..j].iter().zip(&row[start..]).map(|(l, x)| l * x).sum();
                    row[start + j] = (row[start + j] - sum) / l[j];
                }
            }
        });
        let panel: Vec<f64> = below.chunks(n).flat_map(|row| row[start..end].iter().copied()).collect();
        below.par_chunks_mut(n * BAND).enumerate().for_each(|(band, rows)| {
            let (first, count) = (band * BAND, rows.len() / n);
            let columns = first + count;
            let a = (&panel[first * width..], (width, 1));
            gemm((count, width, columns), -1.0, a, (&panel, (1, width)), 1.0, (&mut rows[end..], (n, 1)));
        });
    }
    for (i, row) in a.chunks_mut(n.max(1)).enumerate() {
        row[i + 1..].fill(0.0);
    }
    true
}

/// Factors a block on the diagonal.
fn diagonal(a: &mut [f64], n: usize, range: std::ops::Range<usize>) -> bool {
    for i in range.clone() {
        for j in range.start..=i {
            let sum: f64 = (range.start..j).map(|k| a[i * n + k] * a[j * n + k]).sum();
            let rest = a[i * n + j] - sum;
            if i != j {
                a[i * n + j] = rest / a[j * n + j];
            } else if rest > 0.0 && rest.is_finite() {
                a[i * n + j] = rest.sqrt();
            } else {
                return false;
            }
        }
    }
    true
}

/// The `x` with `a * x = b` for a small symmetric `a` (`n x n`, lower triangle, which is replaced by its factor); `None`
/// where `a` is not positive definite.
pub fn solve(a: &mut [f64], b: &[f64]) -> Option<Vec<f64>> {
    let n = b.len();
    if !cholesky(a, n) {
        return None;
    }
    let mut x = b.to_vec();
    for i in 0..n {
        let sum: f64 = (0..i).map(|k| a[i * n + k] * x[k]).sum();
        x[i] = (x[i] - sum) / a[i * n + i];
    }
    for i in (0..n).rev() {
        let sum: f64 = (i + 1..n).map(|k| a[k * n + i] * x[k]).sum();
        x[i] = (x[i] - sum) / a[i * n + i];
    }
    Some(x)
}

/// Replaces the symmetric positive definite `a` (`n x n`, its lower triangle is read) by its inverse. `false` where it is not
/// positive definite; `a` is then spoilt.
pub fn inverse(a: &mut [f64], n: usize) -> bool {
    if !cholesky(a, n) {
        return false;
    }
    // Row `j` holds column `j` of the inverse of the factor, which is lower triangular too.
    let mut columns = vec![0f64; n * n];
    columns.par_chunks_mut(n.max(1)).enumerate().for_each(|(j, column)| {
        column[j] = 1.0 / a[j * n + j];
        for i in j + 1..n {
            let sum: f64 = a[i * n + j..i * n + i].iter().zip(&column[j..i]).map(|(l, x)| l * x).sum();
            column[i] = -sum / a[i * n + i];
        }
    });
    matmul((n, n, n), 1.0, (&columns, (n, 1)), (&columns, (1, n)), 0.0, a);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A well conditioned matrix.
    fn spd(n: usize) -> Vec<f64> {
        let at = |i: usize, j: usize| ((i * 7 + j * 3) as f64).sin();
        let square = |i: usize, j: usize| (0..n).map(|k| at(i, k) * at(j, k)).sum::<f64>();
        (0..n * n).map(|p| square(p / n, p % n) + if p / n == p % n { n as f64 } else { 0.0 }).collect()
    }

    #[test]
    fn the_factor_times_its_transpose_is_the_matrix() {
        for n in [1, 5, 64, 150] {
            let a = spd(n);
            let mut l = a.clone();
            assert!(cholesky(&mut l, n));
            for (p, want) in a.iter().enumerate() {
                let (i, j) = (p / n, p % n);
                let product: f64 = (0..n).map(|k| l[i * n + k] * l[j * n + k]).sum();
                assert!((product - want).abs() < 1e-9 * n as f64, "{product} for {want} at {i}, {j} of {n}");
                assert!(j <= i || l[p] == 0.0);
            }
        }
    }

    #[test]
    fn what_is_not_positive_definite_is_said() {
        assert!(!cholesky(&mut [1.0, 0.0, 2.0, 1.0], 2));
        assert!(!cholesky(&mut [f64::NAN], 1));
        assert!(cholesky(&mut [], 0));
    }

    #[test]
    fn the_inverse_times_the_matrix_is_one() {
        for n in [1, 6, 90] {
            let a = spd(n);
            let mut b = a.clone();
            assert!(inverse(&mut b, n));
            for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let sum: f64 = (0..n).map(|k| a[i * n + k] * b[k * n + j]).sum();
                assert!((sum - f64::from(u8::from(i == j))).abs() < 1e-9, "{sum} at {i}, {j} of {n}");
            }
        }
        assert!(!inverse(&mut [0.0], 1));
    }

    #[test]
    fn a_system_is_solved() {
        let n = 70;
        let a = spd(n);
        let want: Vec<f64> = (0..n).map(|i| i as f64 - 3.0).collect();
        let b: Vec<f64> = (0..n).map(|i| (0..n).map(|j| a[i * n + j] * want[j]).sum()).collect();
        let x = solve(&mut a.clone(), &b).unwrap();
        assert!(x.iter().zip(&want).all(|(x, w)| (x - w).abs() < 1e-9));
    }
}
