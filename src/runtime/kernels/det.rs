//! Det.

use super::super::custom::{Fact, Kernel};
use super::common::{f64s, narrowed};
use super::layout::required;
use tract_onnx::tract_hir::internal::*;

/// `Det` (specification: versions 11 and 22): determinants of the last two axes, by elimination in f64.
#[derive(Debug)]
pub(super) struct Det;

/// Of a matrix of `n` rows, which is destroyed.
fn determinant(m: &mut [f64], n: usize) -> f64 {
    let mut det = 1.0;
    for k in 0..n {
        let largest = (k..n).max_by(|&a, &b| m[a * n + k].abs().total_cmp(&m[b * n + k].abs())).unwrap_or(k);
        if largest != k {
            (0..n).for_each(|j| m.swap(k * n + j, largest * n + j));
            det = -det;
        }
        let pivot = m[k * n + k];
        det *= pivot;
        if pivot == 0.0 {
            return 0.0;
        }
        for i in k + 1..n {
            let factor = m[i * n + k] / pivot;
            (k..n).for_each(|j| m[i * n + j] -= factor * m[k * n + j]);
        }
    }
    det
}

impl Kernel for Det {
    fn name(&self) -> &'static str {
        "Det"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let x = required(inputs, 0)?;
        let outer = x.shape.len().checked_sub(2).context("matrices are expected")?;
        Ok(tvec![Fact::new(x.dtype, x.shape[..outer].into())])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        let [outer @ .., rows, columns] = x.shape() else { bail!("matrices are expected") };
        ensure!(rows == columns, "a square matrix is expected, not {:?}", x.shape());
        let mut values = f64s(x)?;
        let count: usize = outer.iter().product();
        let mut matrix = |k: usize| determinant(&mut values[k * rows * rows..][..rows * rows], *rows);
        let y: Vec<f64> = (0..count).map(&mut matrix).collect();
        Ok(tvec![narrowed(x.datum_type(), outer, &y)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pivots_and_singular_matrices() {
        let x = Tensor::from_shape(&[3, 2, 2], &[0f32, 1.0, 1.0, 0.0, 1.0, 2.0, 2.0, 4.0, 3.0, 1.0, 4.0, 2.0]).unwrap();
        let y = Det.eval(&[Some(&x)]).unwrap();
        y[0].close_enough(&tensor1(&[-1f32, 0.0, 2.0]), Approximation::Close).unwrap();
        let none = Tensor::zero::<f32>(&[0, 0]).unwrap();
        assert_eq!(Det.eval(&[Some(&none)]).unwrap()[0], tensor0(1f32));
        assert!(Det.eval(&[Some(&tensor2(&[[1f32, 2.0]]))]).is_err());
    }
}
