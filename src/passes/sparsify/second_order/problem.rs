//! The least squares problem of a layer.

use crate::calibrate::{Gram, Regression};
use crate::error::{Error, Result};
use crate::math::{inverse, matmul};

/// Added to the diagonal of the matrix, as a share of its mean: towards the weights as they are.
const DAMPING: f64 = 1e-3;

/// Times that damping is made ten times as large where the matrix is not positive definite.
const ATTEMPTS: i32 = 6;

/// Least squares fit of the rows of one group of a layer: for each row, `w C w^T - 2 b w^T` is to be small, the mean squared
/// error of an output up to a constant.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub columns: usize,
    /// Second moments of the columns (about their mean where a bias takes up a shift), damped; `[columns, columns]`.
    pub c: Vec<f64>,
    /// `C^-1`.
    pub inverse: Vec<f64>,
    /// `[rows, columns]`.
    pub b: Vec<f64>,
    /// How much the error of each row counts.
    pub gains: Vec<f64>,
}

impl Problem {
    /// To give what the rows `w` give now.
    ///
    /// # Errors
    /// Statistics of another layer, or with NaN or infinity.
    pub fn to_stay(gram: &Gram, group: usize, w: &[f32], gains: &[f64], centred: bool) -> Result<Self> {
        let (c, inverse, _) = moments(gram, group, centred)?;
        let (n, w): (usize, Vec<f64>) = (gram.size, w.iter().map(|&x| x.into()).collect());
        let rows = fits(&w, n, gains)?;
        let mut b = vec![0f64; rows * n];
        matmul((rows, n, n), 1.0, (&w, (n, 1)), (&c, (n, 1)), 0.0, &mut b);
        Ok(Self { rows, columns: n, c, inverse, b, gains: gains.to_vec() })
    }

    /// To give other outputs, which hold `offsets` besides; where the data do not tell, the rows stay near to `w`.
    ///
    /// # Errors
    /// As [`Problem::to_stay`].
    pub fn to_give(
        sums: &Regression,
        group: usize,
        w: &[f32],
        gains: &[f64],
        (offsets, centred): (&[f64], bool),
    ) -> Result<Self> {
        let (gram, n) = (&sums.gram, sums.gram.size);
        let (c, inverse, damping) = moments(gram, group, centred)?;
        let w: Vec<f64> = w.iter().map(|&x| x.into()).collect();
        let rows = fits(&w, n, gains)?;
        if sums.outputs != rows || offsets.len() != rows {
            return Err(misfit());
        }
        let count = (gram.count as f64).max(1.0);
        let (mean_x, mean_y) = (gram.mean(group), sums.mean(group));
        let product = sums.product(group);
        // What the weight alone is to give: the outputs without the bias.
        let about = |o: usize| if centred { mean_y[o] } else { offsets[o] };
        let element = |p: usize| product[p] / count - about(p / n) * mean_x[p % n] + damping * w[p];
        let b: Vec<f64> = (0..rows * n).map(element).collect();
        if !b.iter().all(|x| x.is_finite()) {
            return Err(not_finite());
        }
        Ok(Self { rows, columns: n, c, inverse, b, gains: gains.to_vec() })
    }

    /// The rows that fit best.
    pub fn optimum(&self) -> Vec<f64> {
        let n = self.columns;
        let mut w = vec![0f64; self.rows * n];
        matmul((self.rows, n, n), 1.0, (&self.b, (n, 1)), (&self.inverse, (n, 1)), 0.0, &mut w);
        w
    }

    /// What all outputs together vary by with these rows, each as its gain says.
    pub fn energy(&self, w: &[f64]) -> f64 {
        let n = self.columns;
        let mut out = vec![0f64; self.rows * n];
        matmul((self.rows, n, n), 1.0, (w, (n, 1)), (&self.c, (n, 1)), 0.0, &mut out);
        let row = |r: usize| w[r * n..(r + 1) * n].iter().zip(&out[r * n..]).map(|(w, h)| w * h).sum::<f64>();
        (0..self.rows).map(|r| self.gains[r] * row(r)).sum()
    }
}

fn misfit() -> Error {
    Error::internal("statistics of another layer")
}

fn not_finite() -> Error {
    Error::data("the inputs or outputs of a layer hold NaN or infinity")
}

fn fits(w: &[f64], columns: usize, gains: &[f64]) -> Result<usize> {
    let rows = w.len().checked_div(columns).filter(|rows| rows * columns == w.len() && gains.len() == *rows);
    rows.ok_or_else(misfit)
}

/// Second moments, damped, and their inverse, and the damping.
fn moments(gram: &Gram, group: usize, centred: bool) -> Result<(Vec<f64>, Vec<f64>, f64)> {
    let (n, count) = (gram.size, (gram.count as f64).max(1.0));
    if n == 0 || group >= gram.groups {
        return Err(misfit());
    }
    let (matrix, mean) = (gram.matrix(group), gram.mean(group));
    let at = |p: usize| matrix[p] / count - if centred { mean[p / n] * mean[p % n] } else { 0.0 };
    let plain: Vec<f64> = (0..n * n).map(at).collect();
    let trace: f64 = (0..n).map(|k| plain[k * n + k]).sum();
    if !trace.is_finite() {
        return Err(not_finite());
    }
    // Inputs that never vary say nothing: the weights themselves count then.
    let unit = if trace > 0.0 { trace / n as f64 } else { 1.0 };
    for attempt in 0..ATTEMPTS {
        let damping = unit * DAMPING * 10f64.powi(attempt);
        let mut c = plain.clone();
        (0..n).for_each(|k| c[k * n + k] += damping);
        let mut inverted = c.clone();
        if inverse(&mut inverted, n) {
            return Ok((c, inverted, damping));
        }
    }
    Err(Error::data("the inputs of a layer depend on each other beyond repair by damping"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::math::Unfold;

    /// A problem of `rows` rows with correlated inputs, and the weight that it comes from.
    pub fn problem(rows: usize, n: usize) -> (Problem, Vec<f32>) {
        let wave = |k: usize, f: f64| ((k as f64) * f).sin();
        let samples = 40 * n;
        let base: Vec<f64> = (0..samples * n).map(|k| wave(k * k % 9973, 0.71)).collect();
        let mix = |s: usize, k: usize| base[s * n + k] + 0.6 * base[s * n + (k + 1) % n] + 0.3;
        let x: Vec<f32> = (0..samples * n).map(|p| mix(p / n, p % n) as f32).collect();
        let mut gram = Gram::new(Unfold::Last);
        gram.add(&x, &[samples, n]).unwrap();
        gram.finish();
        let w: Vec<f32> = (0..rows * n).map(|k| wave(k + 1, 1.7) as f32).collect();
        (Problem::to_stay(&gram, 0, &w, &vec![1.0; rows], true).unwrap(), w)
    }

    #[test]
    fn what_is_there_fits_itself() {
        let (p, w) = problem(3, 8);
        assert!(p.optimum().iter().zip(&w).all(|(a, b)| (a - f64::from(*b)).abs() < 1e-8));
        assert!(p.energy(&p.optimum()) > 0.0);
    }

    /// Outputs of another weight: the fit finds that one, whatever the present one, up to damping.
    #[test]
    fn other_outputs_are_fitted() {
        let n = 4;
        let x: Vec<f32> = (0..200 * n).map(|k| ((k * k % 613) as f32 * 0.37).sin()).collect();
        let want = [0.5f32, -1.0, 0.25, 2.0];
        let y: Vec<f32> = x.chunks(n).map(|x| x.iter().zip(&want).map(|(x, w)| x * w).sum::<f32>() + 3.0).collect();
        let mut sums = Regression::new(Unfold::Last);
        sums.add((&x, &[200, n]), (&y, &[200, 1])).unwrap();
        sums.finish();
        for (offset, centred) in [(0.0, true), (3.0, false)] {
            let p = Problem::to_give(&sums, 0, &[0.0; 4], &[1.0], (&[offset], centred)).unwrap();
            for (got, want) in p.optimum().iter().zip(&want) {
                assert!((got - f64::from(*want)).abs() < 5e-3, "{got} for {want}");
            }
        }
        assert!(Problem::to_give(&sums, 0, &[0.0; 8], &[1.0; 2], (&[0.0; 2], true)).is_err());
    }
}
