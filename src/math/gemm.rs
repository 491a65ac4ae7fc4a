//! Matrix products on `matrixmultiply`.

use super::Real;
use rayon::prelude::*;

/// Steps between the rows and between the columns of a matrix, in elements.
pub type Layout = (usize, usize);

/// One past the last element that a matrix names.
fn extent(rows: usize, columns: usize, (r, c): Layout) -> usize {
    if rows == 0 || columns == 0 { 0 } else { (rows - 1) * r + (columns - 1) * c + 1 }
}

/// `c = alpha * a * b + beta * c` on one thread; `a` is `m x k`, `b` is `k x n`, `c` is `m x n`.
///
/// A matrix that does not fit its slice is a bug of the caller, and panics.
pub fn gemm<T: Real>(
    (m, k, n): (usize, usize, usize),
    alpha: T,
    (a, la): (&[T], Layout),
    (b, lb): (&[T], Layout),
    beta: T,
    (c, lc): (&mut [T], Layout),
) {
    assert!(extent(m, k, la) <= a.len() && extent(k, n, lb) <= b.len() && extent(m, n, lc) <= c.len());
    // Rows that run into each other, or columns, would alias.
    assert!(m <= 1 || n <= 1 || lc.0 >= n * lc.1 || lc.1 >= m * lc.0);
    assert!((m <= 1 || lc.0 > 0) && (n <= 1 || lc.1 > 0));
    let signed = |l: Layout| (l.0 as isize, l.1 as isize);
    let (la, lb, lc) = (signed(la), signed(lb), signed(lc));
    // SAFETY: the asserts above are its conditions.
    unsafe {
        let (a, b, c) = ((a.as_ptr(), la.0, la.1), (b.as_ptr(), lb.0, lb.1), (c.as_mut_ptr(), lc.0, lc.1));
        T::raw_gemm((m, k, n), alpha, a, b, beta, c);
    }
}

/// Multiplications of one piece of work.
const WORK: usize = 1 << 22;

/// `c = alpha * a * b + beta * c` on all threads, `c` dense and row-major, in bands of rows whose height depends on the
/// sizes alone.
pub fn matmul<T: Real>(
    (m, k, n): (usize, usize, usize),
    alpha: T,
    (a, la): (&[T], Layout),
    (b, lb): (&[T], Layout),
    beta: T,
    c: &mut [T],
) {
    if m == 0 || n == 0 {
        return;
    }
    let rows = (WORK / (k * n).max(1)).clamp(16, m.max(16)).next_multiple_of(16);
    c.par_chunks_mut(rows * n).enumerate().for_each(|(band, c)| {
        let a = if k == 0 { a } else { &a[band * rows * la.0..] };
        gemm((c.len() / n, k, n), alpha, (a, la), (b, lb), beta, (c, (n, 1)));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_and_layouts_agree_with_the_definition() {
        let (m, k, n) = (130, 7, 40_000);
        let a: Vec<f64> = (0..m * k).map(|i| (i % 5) as f64 - 2.0).collect();
        let b: Vec<f64> = (0..k * n).map(|i| (i % 7) as f64 - 3.0).collect();
        let mut c = vec![1.0; m * n];
        // `a` is stored transposed.
        matmul((m, k, n), 2.0, (&a, (1, m)), (&b, (n, 1)), 0.5, &mut c);
        for (i, j) in [(0, 0), (17, 39_999), (129, 123), (64, 20_000)] {
            let want: f64 = (0..k).map(|p| a[p * m + i] * b[p * n + j]).sum::<f64>() * 2.0 + 0.5;
            assert_eq!(c[i * n + j], want);
        }
    }

    #[test]
    fn empty_products() {
        let mut c = [3.0f32; 4];
        matmul((2, 0, 2), 1.0, (&[], (0, 1)), (&[], (2, 1)), 0.0, &mut c);
        assert_eq!(c, [0.0; 4]);
        matmul((0, 3, 2), 1.0, (&[], (3, 1)), (&[0.0; 6], (2, 1)), 0.0, &mut []);
    }

    #[test]
    #[should_panic(expected = "assertion")]
    fn a_matrix_that_does_not_fit_panics() {
        gemm((2, 2, 2), 1.0, (&[0.0f32; 3], (2, 1)), (&[0.0; 4], (2, 1)), 0.0, (&mut [0.0; 4], (2, 1)));
    }
}
