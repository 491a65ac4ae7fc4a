//! Numpy's broadcasting.

use super::parallel::CHUNK;
use super::{Array, Real, View, elementwise, elementwise2};
use rayon::prelude::*;

/// The common shape, aligned at the last axis; `None` where the shapes do not broadcast.
pub fn broadcast_dims(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |d: &[usize], k: usize| (k + d.len()).checked_sub(rank).map_or(1, |j| d[j]);
    let joined = (0..rank).map(|k| match (at(a, k), at(b, k)) {
        (x, y) if x == y => Some(x),
        (1, y) => Some(y),
        (x, 1) => Some(x),
        _ => None,
    });
    joined.collect()
}

/// `f` of every pair of elements of two arrays whose shapes broadcast to `dims`.
pub fn binary<T: Real>(a: &Array<T>, b: &Array<T>, dims: &[usize], f: impl Fn(T, T) -> T + Sync) -> Array<T> {
    let total: usize = dims.iter().product();
    let whole = |x: &Array<T>| x.dims() == dims || (x.len() == total && total > 1);
    if whole(a) && whole(b) {
        return Array::new(dims, elementwise2(a.data(), b.data(), f));
    }
    if let ([y], true) = (b.data(), whole(a)) {
        return Array::new(dims, elementwise(a.data(), |x| f(x, *y)));
    }
    if let ([x], true) = (a.data(), whole(b)) {
        return Array::new(dims, elementwise(b.data(), |y| f(*x, y)));
    }
    Array::new(dims, stretched(a, b, dims, f))
}

/// One axis that both operands run through with one stride each.
struct Axis {
    size: usize,
    a: isize,
    b: isize,
}

fn joint_axes<T: Real>(a: &Array<T>, b: &Array<T>, dims: &[usize]) -> Vec<Axis> {
    let (va, vb) = (View::dense(a.dims()).broadcast(dims), View::dense(b.dims()).broadcast(dims));
    let mut axes: Vec<Axis> = vec![];
    for ((&size, &a), &b) in dims.iter().zip(&va.strides).zip(&vb.strides) {
        let n = size as isize;
        match axes.last_mut() {
            _ if size == 1 => {}
            Some(last) if last.a == a * n && last.b == b * n => *last = Axis { size: last.size * size, a, b },
            _ => axes.push(Axis { size, a, b }),
        }
    }
    axes
}

fn stretched<T: Real>(a: &Array<T>, b: &Array<T>, dims: &[usize], f: impl Fn(T, T) -> T + Sync) -> Vec<T> {
    let total: usize = dims.iter().product();
    if total == 0 {
        return vec![];
    }
    let mut axes = joint_axes(a, b, dims);
    let last = axes.pop().unwrap_or(Axis { size: 1, a: 0, b: 0 });
    let start = |mut row: usize| {
        let (mut at_a, mut at_b) = (0, 0);
        for axis in axes.iter().rev() {
            let k = (row % axis.size) as isize;
            row /= axis.size;
            at_a += k * axis.a;
            at_b += k * axis.b;
        }
        (at_a as usize, at_b as usize)
    };
    let (n, rows) = (last.size, (CHUNK / last.size).max(1));
    let mut out = vec![T::zero(); total];
    out.par_chunks_mut(n * rows).enumerate().for_each(|(chunk, out)| {
        for (k, row) in out.chunks_mut(n).enumerate() {
            let (i, j) = start(chunk * rows + k);
            let (a, b) = (&a.data()[i..], &b.data()[j..]);
            // Innermost strides are 0 or 1: operands are dense.
            match (last.a, last.b) {
                (0, 0) => row.fill(f(a[0], b[0])),
                (0, _) => row.iter_mut().zip(b).for_each(|(y, &b)| *y = f(a[0], b)),
                (_, 0) => row.iter_mut().zip(a).for_each(|(y, &a)| *y = f(a, b[0])),
                _ => row.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (&a, &b))| *y = f(a, b)),
            }
        }
    });
    out
}

/// Sums over the axes along which an array of shape `target` was stretched: the gradient of broadcasting.
pub fn reduce_to<T: Real>(x: Array<T>, target: &[usize]) -> Array<T> {
    if x.dims() == target {
        return x;
    }
    let len: usize = target.iter().product();
    if len == x.len() {
        return x.reshaped(target);
    }
    let view = View::dense(target).broadcast(x.dims());
    let reduced: Vec<bool> = view.strides.iter().zip(x.dims()).map(|(&s, &d)| s == 0 && d != 1).collect();
    super::Blocks::new(x.dims(), &reduced).sum(&x).reshaped(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(dims: &[usize]) -> Array<f64> {
        Array::new(dims, (0..dims.iter().product()).map(|i| i as f64 + 1.0).collect())
    }

    #[test]
    fn all_ways_to_stretch_agree_with_indexing() {
        let cases: [(&[usize], &[usize]); 9] = [
            (&[2, 3, 4], &[3, 1]),
            (&[2, 3, 4], &[4]),
            (&[2, 1, 4], &[1, 3, 1]),
            (&[], &[2, 2]),
            (&[1], &[]),
            (&[2, 3], &[2, 3]),
            (&[3, 1], &[1, 4]),
            (&[0, 3], &[3]),
            (&[1, 3], &[0, 1]),
        ];
        for (da, db) in cases {
            let (a, b) = (array(da), array(db));
            let dims = broadcast_dims(da, db).unwrap();
            let got = binary(&a, &b, &dims, |x, y| 100.0 * x + y);
            let (x, y) =
                (View::dense(da).broadcast(&dims).read(a.data()), View::dense(db).broadcast(&dims).read(b.data()));
            let want: Vec<f64> = x.iter().zip(&y).map(|(x, y)| 100.0 * x + y).collect();
            assert_eq!(got.data(), want, "{da:?} {db:?}");
            let mut sums = vec![0.0; a.len()];
            View::dense(da).broadcast(&dims).add_to(&mut sums, got.data());
            assert_eq!(reduce_to(got, da).data(), sums, "{da:?} {db:?}");
        }
        assert_eq!(broadcast_dims(&[2], &[3]), None);
    }
}
