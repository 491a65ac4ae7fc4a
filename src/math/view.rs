//! Strided views: what transposing, slicing, expanding and padding read and write.

use super::Real;
use super::parallel::CHUNK;
use rayon::prelude::*;

/// Which elements of a buffer, in row-major order of `dims`. A stride of 0 repeats an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Sizes.
    pub dims: Vec<usize>,
    /// Steps in elements, per axis.
    pub strides: Vec<isize>,
    /// Position of the first element.
    pub offset: usize,
}

/// Steps between the elements of a dense row-major array, per axis.
pub fn row_strides(dims: &[usize]) -> Vec<isize> {
    let mut strides = vec![1; dims.len()];
    for k in (1..dims.len()).rev() {
        strides[k - 1] = strides[k] * dims[k] as isize;
    }
    strides
}

impl View {
    /// All of a dense array.
    pub fn dense(dims: &[usize]) -> Self {
        Self { dims: dims.to_vec(), strides: row_strides(dims), offset: 0 }
    }

    /// The axes in another order: axis `k` of the result is axis `order[k]` of this one.
    pub fn permuted(&self, order: &[usize]) -> Self {
        let dims = order.iter().map(|&k| self.dims[k]).collect();
        let strides = order.iter().map(|&k| self.strides[k]).collect();
        Self { dims, strides, offset: self.offset }
    }

    /// `len` elements of an axis, the first at `start`, then every `step`-th.
    pub fn cut(mut self, axis: usize, start: usize, len: usize, step: isize) -> Self {
        if len > 0 {
            self.offset = self.offset.wrapping_add_signed(self.strides[axis] * start as isize);
        }
        self.strides[axis] *= step;
        self.dims[axis] = len;
        self
    }

    /// Broadcast to `dims`, aligned at the last axis.
    pub fn broadcast(&self, dims: &[usize]) -> Self {
        let lead = dims.len().saturating_sub(self.dims.len());
        let stride = |k: usize| match k.checked_sub(lead) {
            Some(j) if self.dims[j] == dims[k] => self.strides[j],
            _ => 0,
        };
        Self { dims: dims.to_vec(), strides: (0..dims.len()).map(stride).collect(), offset: self.offset }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same elements with neighbouring axes joined that one stride runs through, and no axes of size 1.
    fn merged(&self) -> Self {
        let mut out = Self { dims: vec![], strides: vec![], offset: self.offset };
        for (&d, &s) in self.dims.iter().zip(&self.strides) {
            match (out.dims.last_mut(), out.strides.last_mut()) {
                _ if d == 1 => {}
                (Some(last), Some(stride)) if *stride == s * d as isize => {
                    *last *= d;
                    *stride = s;
                }
                _ => {
                    out.dims.push(d);
                    out.strides.push(s);
                }
            }
        }
        if out.dims.is_empty() {
            out.dims.push(1);
            out.strides.push(1);
        }
        out
    }

    /// Position of the first element of row `row` (all axes but the last).
    fn row(&self, mut row: usize) -> usize {
        let mut at = self.offset;
        for k in (0..self.dims.len() - 1).rev() {
            at = at.wrapping_add_signed((row % self.dims[k]) as isize * self.strides[k]);
            row /= self.dims[k];
        }
        at
    }

    /// The elements.
    pub fn read<T: Real>(&self, source: &[T]) -> Vec<T> {
        if self.is_empty() {
            return vec![];
        }
        let view = self.merged();
        let (inner, stride) = (view.dims[view.dims.len() - 1], view.strides[view.dims.len() - 1]);
        let mut out = vec![T::zero(); view.len()];
        let rows = (CHUNK / inner).max(1);
        out.par_chunks_mut(inner * rows).enumerate().for_each(|(chunk, out)| {
            for (k, row) in out.chunks_mut(inner).enumerate() {
                let at = view.row(chunk * rows + k);
                match stride {
                    1 => row.copy_from_slice(&source[at..at + inner]),
                    0 => row.fill(source[at]),
                    _ => {
                        let element = |i: usize| source[at.wrapping_add_signed(i as isize * stride)];
                        row.iter_mut().enumerate().for_each(|(i, x)| *x = element(i));
                    }
                }
            }
        });
        out
    }

    /// Adds `values`, in the order of the view, to the elements that it names.
    pub fn add_to<T: Real>(&self, target: &mut [T], values: &[T]) {
        if self.is_empty() {
            return;
        }
        let view = self.merged();
        let (inner, stride) = (view.dims[view.dims.len() - 1], view.strides[view.dims.len() - 1]);
        for (k, row) in values.chunks(inner).enumerate() {
            let at = view.row(k);
            match stride {
                1 => target[at..at + inner].iter_mut().zip(row).for_each(|(t, &x)| *t += x),
                0 => target[at] += super::sum(row),
                _ => {
                    row.iter().enumerate().for_each(|(i, &x)| target[at.wrapping_add_signed(i as isize * stride)] += x)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_read_and_add() {
        let x: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let v = View::dense(&[2, 3]);
        assert_eq!(v.permuted(&[1, 0]).read(&x), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(v.clone().cut(1, 2, 2, -2).read(&x), [2.0, 0.0, 5.0, 3.0]);
        assert_eq!(View::dense(&[3]).broadcast(&[2, 3]).read(&x[..3]), [0.0, 1.0, 2.0, 0.0, 1.0, 2.0]);
        assert_eq!(View::dense(&[2, 1]).broadcast(&[2, 3]).read(&x[1..3]), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
        let mut sums = vec![0.0f32; 3];
        View::dense(&[3]).broadcast(&[2, 3]).add_to(&mut sums, &x);
        assert_eq!(sums, [3.0, 5.0, 7.0]);
        assert!(v.cut(0, 2, 0, 1).read(&x).is_empty());
    }
}
