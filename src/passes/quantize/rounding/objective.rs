//! What a rounding error costs, as the calibration data weigh it.

use crate::calibrate::Gram;
use crate::error::{Error, Result};
use crate::math::cholesky;

/// Share of the mean diagonal that is added to it, so that inputs that hardly vary do not let errors grow without bound
/// (GPTQ's `percdamp`).
pub const DAMPING: f64 = 0.01;

/// Times that damping is made ten times as large where the matrix is not positive definite.
const ATTEMPTS: i32 = 6;

/// The squared output error `e H e^T` of a row's rounding error `e`, factored as `H = U D U^T` with `U` unit upper
/// triangular in the order in which columns are rounded: then it is the sum of `D_k (e U)_k^2`, which is why rounding
/// column after column with the feedback of `U` is a good way to make it small (Chee et al., QuIP, 2023, theorem 6: it is
/// what GPTQ does, and needs no inverse).
pub struct Objective {
    /// Number of columns.
    pub size: usize,
    /// Columns in the order in which they are rounded: where inputs are large first (GPTQ's `act-order`).
    pub order: Vec<usize>,
    /// `H` in that order, damped, `[size, size]`.
    pub h: Vec<f32>,
    /// `U` in that order; zeros on and below the diagonal.
    pub feedback: Vec<f32>,
}

impl Objective {
    /// The objective of a group of a layer. `centred`: a bias takes up the mean error afterwards, so that only variances and
    /// covariances count.
    ///
    /// # Errors
    /// Statistics with NaN or infinity.
    pub fn new(gram: &Gram, group: usize, centred: bool, damping: f64) -> Result<Self> {
        let (n, count) = (gram.size, (gram.count as f64).max(1.0));
        let (matrix, mean) = (gram.matrix(group), gram.mean(group));
        let centre = |i: usize, j: usize| if centred { mean[i] * mean[j] } else { 0.0 };
        let at = |i: usize, j: usize| matrix[i * n + j] / count - centre(i, j);
        let trace: f64 = (0..n).map(|k| at(k, k)).sum();
        if !trace.is_finite() {
            return Err(Error::data("the inputs of a layer hold NaN or infinity"));
        }
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| at(b, b).total_cmp(&at(a, a)).then(a.cmp(&b)));
        // Inputs that are always zero: any rounding is as good, and none may divide by it.
        let unit = if trace > 0.0 { trace / n as f64 } else { 1.0 };
        let mut factor = vec![0f64; n * n];
        for attempt in 0..ATTEMPTS {
            let extra = unit * damping * 10f64.powi(attempt);
            // Cholesky goes from the first index on, U D U^T from the last: the order is turned around.
            for i in 0..n {
                for j in 0..=i {
                    let damped = if i == j { extra } else { 0.0 };
                    factor[i * n + j] = at(order[n - 1 - i], order[n - 1 - j]) + damped;
                }
            }
            if cholesky(&mut factor, n) {
                let damped = |i: usize, j: usize| at(order[i], order[j]) + if i == j { extra } else { 0.0 };
                let h = (0..n * n).map(|p| damped(p / n, p % n) as f32).collect();
                return Ok(Self { size: n, feedback: feedback(&factor, n), h, order });
            }
        }
        Err(Error::data("the inputs of a layer depend on each other beyond repair by damping"))
    }

    /// How much the error of each column costs by itself, in the order of the weight.
    pub fn importance(&self) -> Vec<f32> {
        let mut importance = vec![0f32; self.size];
        for (k, &column) in self.order.iter().enumerate() {
            importance[column] = self.h[k * self.size + k];
        }
        importance
    }

    /// `e H e^T` of a row's error, given in the order of the weight.
    pub fn loss(&self, error: &[f32]) -> f64 {
        let e: Vec<f64> = self.order.iter().map(|&c| f64::from(error[c])).collect();
        let row = |h: &[f32]| h.iter().zip(&e).map(|(&h, e)| f64::from(h) * e).sum::<f64>();
        self.h.chunks(self.size.max(1)).zip(&e).map(|(h, e)| e * row(h)).sum()
    }
}

fn feedback(factor: &[f64], n: usize) -> Vec<f32> {
    let mut u = vec![0f32; n * n];
    for j in 0..n {
        for k in j + 1..n {
            let (row, column) = (n - 1 - j, n - 1 - k);
            u[j * n + k] = (factor[row * n + column] / factor[column * n + column]) as f32;
        }
    }
    u
}
