//! What fitting a linear layer to given outputs asks of the data.

use super::Gram;
use crate::error::{Error, Result};
use crate::math::{Unfold, gemm};

/// Columns whose products are summed in f32 before the sum goes on in f64.
const PART: usize = 512;

/// Sums for the least squares fit of a linear layer to outputs `y` that it should give for its inputs: the [`Gram`] of the
/// columns `x` that it sees, and the sum of `y x^T`. Inputs and outputs may come from different models.
#[derive(Clone, Debug)]
pub struct Regression {
    /// Statistics of the columns.
    pub gram: Gram,
    unfold: Unfold,
    /// Outputs of a group.
    pub outputs: usize,
    /// `[groups, outputs, size]`.
    products: Vec<f64>,
    /// `[groups, outputs]`.
    sums: Vec<f64>,
}

impl Regression {
    /// Nothing seen yet.
    pub fn new(unfold: Unfold) -> Self {
        Self { gram: Gram::new(unfold.clone()), unfold, outputs: 0, products: vec![], sums: vec![] }
    }

    /// Adds the columns of a layer input `x` and the outputs `y` wanted for them, each with its shape.
    ///
    /// # Errors
    /// Shapes that do not fit the layer or each other.
    pub fn add(&mut self, (x, x_dims): (&[f32], &[usize]), (y, y_dims): (&[f32], &[usize])) -> Result<()> {
        let misfit = || Error::data(format!("a layer of inputs {x_dims:?} does not give {y_dims:?}"));
        match self.unfold.clone() {
            Unfold::Last => {
                let (Some(&size), Some(&outputs)) = (x_dims.last(), y_dims.last()) else { return Err(misfit()) };
                if x.len() * outputs != y.len() * size {
                    return Err(misfit());
                }
                self.gram.add(x, x_dims)?;
                self.fit(outputs).ok_or_else(misfit)?;
                for (x, y) in x.chunks(PART * size.max(1)).zip(y.chunks(PART * outputs.max(1))) {
                    self.multiply(0, x.len() / size.max(1), (y, (1, outputs)), (x, (size, 1)));
                }
            }
            Unfold::Patches(patches) => {
                let ([batch, channels, spatial @ ..], [same, outputs, places @ ..]) = (x_dims, y_dims) else {
                    return Err(misfit());
                };
                let (groups, places) = (patches.groups, places.iter().product::<usize>());
                if batch != same || groups == 0 || channels % groups != 0 || outputs % groups != 0 {
                    return Err(misfit());
                }
                let (inputs, outputs) = (channels / groups, outputs / groups);
                let plane: usize = spatial.iter().product();
                let pairs = x.chunks((inputs * plane).max(1)).zip(y.chunks((outputs * places).max(1)));
                for (k, (x, y)) in pairs.enumerate() {
                    let (columns, count) = patches.columns(x, inputs, spatial).ok_or_else(misfit)?;
                    if count != places {
                        return Err(misfit());
                    }
                    self.gram.add_columns_of(k % groups, &columns, count)?;
                    self.fit(outputs).ok_or_else(misfit)?;
                    self.multiply(k % groups, count, (y, (count, 1)), (&columns, (1, count)));
                }
            }
        }
        Ok(())
    }

    fn fit(&mut self, outputs: usize) -> Option<()> {
        if self.sums.is_empty() {
            self.outputs = outputs;
            self.products = vec![0.0; self.gram.groups * outputs * self.gram.size];
            self.sums = vec![0.0; self.gram.groups * outputs];
        }
        (self.outputs == outputs).then_some(())
    }

    /// Adds `y x`, where `y` is `[outputs, count]` and `x` is `[count, size]`, each as it lies.
    fn multiply(
        &mut self,
        group: usize,
        count: usize,
        (y, ly): (&[f32], (usize, usize)),
        (x, lx): (&[f32], (usize, usize)),
    ) {
        let (outputs, size) = (self.outputs, self.gram.size);
        let mut part = vec![0f32; outputs * size];
        gemm((outputs, count, size), 1.0, (y, ly), (x, lx), 0.0, (&mut part, (size, 1)));
        let all = &mut self.products[group * outputs * size..];
        all.iter_mut().zip(&part).for_each(|(sum, &p)| *sum += f64::from(p));
        for (o, sum) in self.sums[group * outputs..][..outputs].iter_mut().enumerate() {
            *sum += (0..count).map(|k| f64::from(y[o * ly.0 + k * ly.1])).sum::<f64>();
        }
    }

    /// Completes the sums; call it after the last column.
    pub fn finish(&mut self) {
        self.gram.finish();
    }

    /// The sum of `y x^T` of a group, `[outputs, size]`.
    pub fn product(&self, group: usize) -> &[f64] {
        let n = self.outputs * self.gram.size;
        &self.products[group * n..][..n]
    }

    /// The mean outputs of a group.
    pub fn mean(&self, group: usize) -> Vec<f64> {
        let n = (self.gram.count as f64).max(1.0);
        self.sums[group * self.outputs..][..self.outputs].iter().map(|s| s / n).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::{Padding, Patches};

    fn wave(n: usize, step: f32) -> Vec<f32> {
        (0..n).map(|k| (k as f32 * step).sin()).collect()
    }

    #[test]
    fn products_are_those_of_outputs_and_columns() {
        let (rows, size, outputs) = (1100, 3, 2);
        let (x, y) = (wave(rows * size, 0.37), wave(rows * outputs, 0.81));
        let mut sums = Regression::new(Unfold::Last);
        sums.add((&x, &[rows, size]), (&y, &[rows, outputs])).unwrap();
        sums.finish();
        for (o, k) in [(0, 0), (1, 2)] {
            let want: f32 = (0..rows).map(|r| y[r * outputs + o] * x[r * size + k]).sum();
            assert!((sums.product(0)[o * size + k] - f64::from(want)).abs() < 1e-3);
        }
        let mean: f32 = (0..rows).map(|r| y[r * outputs + 1]).sum::<f32>() / rows as f32;
        assert!((sums.mean(0)[1] - f64::from(mean)).abs() < 1e-5);
        assert!(sums.add((&x, &[rows, size]), (&y[1..], &[rows * outputs - 1, 1])).is_err());
    }

    /// Outputs that a weight gives: the fit finds that weight, `w G = P`.
    #[test]
    fn a_grouped_convolution_fits_itself() {
        let (batch, channels, length, groups) = (5, 4, 9, 2);
        let patches = Patches {
            groups,
            kernel: vec![3],
            strides: vec![1],
            dilations: vec![1],
            padding: Padding::Fixed(vec![(1, 1)]),
        };
        let x = wave(batch * channels * length, 1.3);
        let w: Vec<f32> = wave(4 * 6, 0.9);
        let mut y = vec![];
        for (sample, o) in (0..batch).flat_map(|b| (0..4).map(move |o| (b, o))) {
            let inputs = &x[(sample * channels + o / 2 * 2) * length..][..2 * length];
            let (columns, count) = patches.columns(inputs, 2, &[length]).unwrap();
            y.extend((0..count).map(|p| (0..6).map(|k| w[o * 6 + k] * columns[k * count + p]).sum::<f32>()));
        }
        let mut sums = Regression::new(Unfold::Patches(patches));
        sums.add((&x, &[batch, channels, length]), (&y, &[batch, 4, length])).unwrap();
        sums.finish();
        assert_eq!((sums.gram.groups, sums.outputs), (2, 2));
        for (o, k) in (0..4).flat_map(|o| (0..6).map(move |k| (o, k))) {
            let g = sums.gram.matrix(o / 2);
            let left: f64 = (0..6).map(|j| f64::from(w[o * 6 + j]) * g[j * 6 + k]).sum();
            assert!((left - sums.product(o / 2)[o % 2 * 6 + k]).abs() < 1e-3, "{o}, {k}");
        }
    }
}
