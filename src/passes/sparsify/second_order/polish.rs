//! The best weights where it is settled which of them are zero.

use super::problem::Problem;
use crate::math::matmul;

/// Multiplications that the iterations for one layer may take, and least and most iterations.
const WORK: f64 = 3e10;
const LEAST: usize = 12;
const MOST: usize = 200;

/// Residual, as a share of that of the start, at which a row is done.
const ENOUGH: f64 = 1e-7;

/// Conjugate gradients, scaled by the diagonal, for all rows at once: the weights where `keep` holds that fit best, from
/// `start` on. Every step makes the fit better.
pub fn polish(p: &Problem, start: &[f64], keep: &[bool]) -> Vec<f64> {
    let n = p.columns;
    let masked = |x: &mut [f64]| x.iter_mut().zip(keep).filter(|(_, k)| !**k).for_each(|(x, _)| *x = 0.0);
    let product = |x: &[f64]| {
        let mut y = vec![0f64; x.len()];
        matmul((p.rows, n, n), 1.0, (x, (n, 1)), (&p.c, (n, 1)), 0.0, &mut y);
        masked(&mut y);
        y
    };
    let mut x = start.to_vec();
    masked(&mut x);
    let mut r: Vec<f64> = p.b.iter().zip(product(&x)).map(|(b, y)| b - y).collect();
    masked(&mut r);
    let scaled = |r: &[f64]| r.iter().enumerate().map(|(k, r)| r / p.c[k % n * (n + 1)]).collect::<Vec<f64>>();
    let dots = |a: &[f64], b: &[f64]| -> Vec<f64> {
        a.chunks(n).zip(b.chunks(n)).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum()).collect()
    };
    let z = scaled(&r);
    let (mut direction, mut rz) = (z.clone(), dots(&r, &z));
    // What is there at all: a start that is nearly right is not to be bettered for ever.
    let scale = dots(&p.b, &scaled(&p.b));
    let enough: Vec<f64> = scale.iter().map(|s| s * ENOUGH * ENOUGH).collect();
    let work = (p.rows * n * n) as f64;
    for _ in 0..((WORK / work.max(1.0)) as usize).clamp(LEAST, MOST) {
        if rz.iter().zip(&enough).all(|(now, enough)| now <= enough) {
            break;
        }
        let q = product(&direction);
        let along = dots(&direction, &q);
        for row in 0..p.rows {
            let range = row * n..(row + 1) * n;
            let step = if along[row] > 0.0 && rz[row] > enough[row] { rz[row] / along[row] } else { 0.0 };
            x[range.clone()].iter_mut().zip(&direction[range.clone()]).for_each(|(x, d)| *x += step * d);
            r[range.clone()].iter_mut().zip(&q[range]).for_each(|(r, q)| *r -= step * q);
        }
        let z = scaled(&r);
        let next = dots(&r, &z);
        for row in 0..p.rows {
            let beta = if rz[row] > 0.0 { next[row] / rz[row] } else { 0.0 };
            let range = row * n..(row + 1) * n;
            direction[range.clone()].iter_mut().zip(&z[range]).for_each(|(d, z)| *d = z + beta * *d);
        }
        rz = next;
    }
    x
}

#[cfg(test)]
mod tests {
    use super::super::problem::tests::problem;
    use super::*;
    use crate::math::solve;

    #[test]
    fn the_fit_is_that_of_the_normal_equations() {
        let n = 10;
        let (p, w) = problem(2, n);
        let keep: Vec<bool> = (0..2 * n).map(|k| k % 3 != 0).collect();
        let start: Vec<f64> = w.iter().map(|&x| x.into()).collect();
        let x = polish(&p, &start, &keep);
        for row in 0..2 {
            let stays: Vec<usize> = (0..n).filter(|k| keep[row * n + k]).collect();
            let pairs = stays.iter().flat_map(|&i| stays.iter().map(move |&j| (i, j)));
            let mut a: Vec<f64> = pairs.map(|(i, j)| p.c[i * n + j]).collect();
            let b: Vec<f64> = stays.iter().map(|k| p.b[row * n + k]).collect();
            let want = solve(&mut a, &b).unwrap();
            for (k, want) in stays.iter().zip(want) {
                assert!((x[row * n + k] - want).abs() < 1e-6, "{} for {want}", x[row * n + k]);
            }
            assert!((0..n).all(|k| keep[row * n + k] || x[row * n + k] == 0.0));
        }
    }
}
