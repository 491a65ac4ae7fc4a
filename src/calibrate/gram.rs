//! Gram matrices of what linear layers see: the second-order statistics that rounding and pruning of weights decide by.

use crate::error::{Error, Result};
use crate::math::{Unfold, add_square};

/// Columns that are summed in f32 before the sum goes on in f64.
const PENDING: usize = 512;

/// `H = sum of x x^T` over every column `x` that a layer multiplies its weight with, one matrix per group of the layer, and
/// the sum of the columns.
///
/// For a weight `W` (`[outputs, size]` in each group), `trace(W H W^T)` is the energy of the layer's outputs, and for a
/// changed weight `trace(D H D^T)`, with `D` the change, is their squared error. Sums are made in the order of
/// [`Gram::add`]: add samples in one order, and the result does not depend on the number of threads.
#[derive(Clone, Debug)]
pub struct Gram {
    unfold: Unfold,
    /// Number of groups.
    pub groups: usize,
    /// Elements of a column: `inputs` or `channels / groups * window`.
    pub size: usize,
    /// Number of columns.
    pub count: u64,
    /// Lower triangles, `[groups, size, size]`; whole matrices after [`Gram::finish`].
    products: Vec<f64>,
    /// `[groups, size]`.
    sums: Vec<f64>,
    /// Columns that are not in `products` yet, one after the other.
    pending: Vec<f32>,
}

impl Gram {
    /// Nothing seen yet.
    pub fn new(unfold: Unfold) -> Self {
        let groups = match &unfold {
            Unfold::Last => 1,
            Unfold::Patches(p) => p.groups,
        };
        Self { unfold, groups, size: 0, count: 0, products: vec![], sums: vec![], pending: vec![] }
    }

    /// Bytes that matrices for columns of `size` elements take.
    pub fn bytes(groups: usize, size: usize) -> usize {
        groups.saturating_mul(size).saturating_mul(size).saturating_mul(size_of::<f64>())
    }

    /// Adds the columns of a layer input of shape `dims`.
    ///
    /// # Errors
    /// A shape that the layer cannot take, or columns of another size than before.
    pub fn add(&mut self, x: &[f32], dims: &[usize]) -> Result<()> {
        match self.unfold.clone() {
            Unfold::Last => {
                let size = *dims.last().ok_or_else(|| Error::data("the input of a linear layer is a scalar"))?;
                self.fit(size)?;
                for columns in x.chunks(PENDING * size.max(1)) {
                    self.add_columns(columns);
                }
                Ok(())
            }
            Unfold::Patches(patches) => {
                let misfit = || Error::data(format!("windows of {:?} do not fit an input of {dims:?}", patches.kernel));
                let [_, channels, spatial @ ..] = dims else { return Err(misfit()) };
                let plane: usize = spatial.iter().product();
                if self.groups == 0 || channels % self.groups != 0 {
                    return Err(misfit());
                }
                let per_group = channels / self.groups;
                for (k, x) in x.chunks(per_group * plane.max(1)).enumerate() {
                    let (columns, places) = patches.columns(x, per_group, spatial).ok_or_else(misfit)?;
                    self.add_columns_of(k % self.groups, &columns, places)?;
                }
                Ok(())
            }
        }
    }

    fn fit(&mut self, size: usize) -> Result<()> {
        if self.size == 0 {
            self.size = size;
            self.products = vec![0.0; self.groups * size * size];
            self.sums = vec![0.0; self.groups * size];
        }
        if self.size != size {
            return Err(Error::data(format!("columns of {size} elements, where they had {} before", self.size)));
        }
        Ok(())
    }

    /// Adds up to [`PENDING`] columns, one after the other.
    fn add_columns(&mut self, columns: &[f32]) {
        for column in columns.chunks(self.size.max(1)) {
            self.sums.iter_mut().zip(column).for_each(|(s, &x)| *s += f64::from(x));
            self.count += 1;
        }
        self.pending.extend_from_slice(columns);
        if self.pending.len() >= PENDING * self.size {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let count = self.pending.len().checked_div(self.size).unwrap_or(0);
        add_square(&mut self.products, (self.size, count), (&self.pending, (1, self.size)));
        self.pending.clear();
    }

    /// Adds the columns of a group that lie side by side, `[size, places]`; groups take turns.
    ///
    /// # Errors
    /// Columns of another size than before.
    pub(super) fn add_columns_of(&mut self, group: usize, columns: &[f32], places: usize) -> Result<()> {
        self.fit(columns.len().checked_div(places).unwrap_or(self.size))?;
        self.add_group(group, columns, places);
        Ok(())
    }

    /// Adds columns that lie side by side.
    fn add_group(&mut self, group: usize, columns: &[f32], places: usize) {
        let (size, whole) = (self.size, self.size * self.size);
        for (sum, row) in self.sums[group * size..].iter_mut().zip(columns.chunks(places.max(1))) {
            *sum += row.iter().map(|&x| f64::from(x)).sum::<f64>();
        }
        add_square(&mut self.products[group * whole..][..whole], (size, places), (columns, (places, 1)));
        self.count += if group == 0 { places as u64 } else { 0 };
    }

    /// Completes the matrices; call it after the last column.
    pub fn finish(&mut self) {
        self.flush();
        self.pending = vec![];
        let size = self.size;
        for matrix in self.products.chunks_mut((size * size).max(1)) {
            for i in 0..size {
                for j in 0..i {
                    matrix[j * size + i] = matrix[i * size + j];
                }
            }
        }
    }

    /// The matrix of a group, `[size, size]`, symmetric after [`Gram::finish`]: a sum, not a mean.
    pub fn matrix(&self, group: usize) -> &[f64] {
        &self.products[group * self.size * self.size..][..self.size * self.size]
    }

    /// The mean column of a group.
    pub fn mean(&self, group: usize) -> Vec<f64> {
        let n = (self.count as f64).max(1.0);
        self.sums[group * self.size..][..self.size].iter().map(|s| s / n).collect()
    }

    /// The statistics of two layers that share one weight.
    ///
    /// # Errors
    /// Columns of another size.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if (self.groups, self.size) != (other.groups, other.size) {
            return Err(Error::internal("layers that share a weight see columns of different sizes"));
        }
        self.products.iter_mut().zip(&other.products).for_each(|(a, b)| *a += b);
        self.sums.iter_mut().zip(&other.sums).for_each(|(a, b)| *a += b);
        self.count += other.count;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::{Padding, Patches};

    fn wave(n: usize) -> Vec<f32> {
        (0..n).map(|k| (k as f32 * 0.37).sin()).collect()
    }

    #[test]
    fn the_matrix_is_the_sum_of_products() {
        let (samples, size) = (1300, 3);
        let x = wave(samples * size);
        let mut gram = Gram::new(Unfold::Last);
        for part in x.chunks(100 * size) {
            gram.add(part, &[10, 10, size]).unwrap();
        }
        gram.finish();
        assert_eq!(gram.count, samples as u64);
        for (i, j) in [(0, 0), (2, 1), (1, 2)] {
            let want: f64 = x.chunks(size).map(|c| f64::from(c[i]) * f64::from(c[j])).sum();
            assert!((gram.matrix(0)[i * size + j] - want).abs() < 1e-4, "{i}, {j}");
        }
        let mean: f64 = x.chunks(size).map(|c| f64::from(c[1])).sum::<f64>() / samples as f64;
        assert!((gram.mean(0)[1] - mean).abs() < 1e-9);
    }

    /// The energy of a convolution's output is the weight's quadratic form.
    #[test]
    fn groups_strides_pads_and_dilations_are_those_of_the_convolution() {
        let patches = Patches {
            groups: 2,
            kernel: vec![2, 3],
            strides: vec![2, 1],
            dilations: vec![1, 2],
            padding: Padding::Fixed(vec![(1, 0), (2, 1)]),
        };
        let (batch, channels, height, width) = (3, 4, 5, 6);
        let x = wave(batch * channels * height * width);
        let mut gram = Gram::new(Unfold::Patches(patches));
        gram.add(&x, &[batch, channels, height, width]).unwrap();
        gram.finish();
        assert_eq!((gram.groups, gram.size), (2, 12));
        let w: Vec<f64> = (0..12).map(|k| (k as f64 * 1.7).cos()).collect();
        let (out_h, out_w) = ((5 + 1 - 2) / 2 + 1, (6 + 3 - 5) + 1);
        assert_eq!(gram.count, (batch * out_h * out_w) as u64);
        for group in 0..2 {
            let mut energy = 0.0;
            for (n, oh, ow) in (0..batch * out_h * out_w).map(|k| (k / out_w / out_h, k / out_w % out_h, k % out_w)) {
                let mut y = 0.0;
                for (c, i, j) in (0..12).map(|k| (k / 6, k / 3 % 2, k % 3)) {
                    let (h, v) = ((oh * 2 + i) as isize - 1, (ow + j * 2) as isize - 2);
                    if (0..height as isize).contains(&h) && (0..width as isize).contains(&v) {
                        let at = ((n * channels + group * 2 + c) * height + h as usize) * width + v as usize;
                        y += w[c * 6 + i * 3 + j] * f64::from(x[at]);
                    }
                }
                energy += y * y;
            }
            let h = gram.matrix(group);
            let form: f64 = (0..144).map(|p| w[p / 12] * h[p] * w[p % 12]).sum();
            assert!((form - energy).abs() < 1e-3 * energy, "{form} and {energy}");
        }
    }

    #[test]
    fn other_sizes_are_refused() {
        let mut gram = Gram::new(Unfold::Last);
        gram.add(&[1.0, 2.0], &[1, 2]).unwrap();
        assert!(gram.add(&[1.0], &[1, 1]).is_err());
        assert!(gram.add(&[1.0], &[]).is_err());
    }
}
