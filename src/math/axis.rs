//! Linear maps along one axis: what padding, resampling and picking do.

use super::Real;

/// Per output position along the axis: the input positions that it is made of, and their weights.
pub type Table<T> = Vec<Vec<(usize, T)>>;

/// `y[o, i, k] = sum of w * x[o, j, k]` over the entries `(j, w)` of `table[i]`. `x` is `[outer, size, inner]`.
pub fn along_axis<T: Real>(x: &[T], (outer, size, inner): (usize, usize, usize), table: &Table<T>) -> Vec<T> {
    let mut y = vec![T::zero(); outer * table.len() * inner];
    for o in 0..outer {
        for (i, entries) in table.iter().enumerate() {
            let y = &mut y[(o * table.len() + i) * inner..][..inner];
            for &(j, w) in entries {
                super::parallel::axpy(y, w, &x[(o * size + j) * inner..][..inner]);
            }
        }
    }
    y
}

/// The gradient of the input of [`along_axis`].
pub fn along_axis_backward<T: Real>(dy: &[T], (outer, size, inner): (usize, usize, usize), table: &Table<T>) -> Vec<T> {
    let mut dx = vec![T::zero(); outer * size * inner];
    for o in 0..outer {
        for (i, entries) in table.iter().enumerate() {
            let dy = &dy[(o * table.len() + i) * inner..][..inner];
            for &(j, w) in entries {
                super::parallel::axpy(&mut dx[(o * size + j) * inner..][..inner], w, dy);
            }
        }
    }
    dx
}
