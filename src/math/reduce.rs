//! Reductions over any axes.

use super::parallel::axpy;
use super::{Array, Real, View, sum};
use rayon::prelude::*;

/// An array seen as rows of kept and reduced axes: `[kept, reduced, kept, ...]` with equal neighbours joined.
pub struct Blocks {
    dims: Vec<usize>,
    kept_dims: Vec<usize>,
    /// Joined axes and whether each is reduced.
    axes: Vec<(usize, bool)>,
}

/// Neighbouring axes of one kind joined: (size, kind).
pub fn merge_axes(dims: &[usize], kinds: &[bool]) -> Vec<(usize, bool)> {
    let mut axes: Vec<(usize, bool)> = vec![];
    for (&size, &kind) in dims.iter().zip(kinds) {
        match axes.last_mut() {
            _ if size == 1 => {}
            Some((last, k)) if *k == kind => *last *= size,
            _ => axes.push((size, kind)),
        }
    }
    axes
}

impl Blocks {
    /// `reduced`: which axes disappear.
    pub fn new(dims: &[usize], reduced: &[bool]) -> Self {
        let kept = dims.iter().zip(reduced).filter(|(_, r)| !**r).map(|(d, _)| *d);
        Self { dims: dims.to_vec(), kept_dims: kept.collect(), axes: merge_axes(dims, reduced) }
    }

    /// Number of elements that fall together.
    pub fn count(&self) -> usize {
        let (all, kept): (usize, usize) = (self.dims.iter().product(), self.kept_dims.iter().product());
        all.checked_div(kept).unwrap_or(0)
    }

    /// Sums over the reduced axes; the others remain.
    pub fn sum<T: Real>(&self, x: &Array<T>) -> Array<T> {
        let len: usize = self.kept_dims.iter().product();
        let mut out = vec![T::zero(); len];
        if !x.is_empty() {
            match self.axes[..] {
                [(n, true)] => out[0] = chunked(x.data(), n),
                [(_, false)] | [] => out.copy_from_slice(x.data()),
                [(_, false), (n, true)] => rows(&mut out, x.data(), n),
                [(_, true), (n, false)] => columns(&mut out, x.data(), n),
                [(n, true), (c, false), (l, true)] => planes(&mut out, x.data(), (n, c, l)),
                _ => self.general(&mut out, x.data()),
            }
        }
        Array::new(&self.kept_dims, out)
    }

    /// The kept axes in front, the reduced ones joined behind: `[kept, count]`.
    pub fn gathered<T: Real>(&self, x: &Array<T>) -> Vec<T> {
        self.view().read(x.data())
    }

    /// The view whose order is that of [`Blocks::gathered`].
    pub fn view(&self) -> View {
        let axes: Vec<usize> = self.axes.iter().map(|a| a.0).collect();
        let of = |kind: bool| (0..axes.len()).filter(move |&k| self.axes[k].1 == kind);
        let order: Vec<usize> = of(false).chain(of(true)).collect();
        View::dense(&axes).permuted(&order)
    }

    fn general<T: Real>(&self, out: &mut [T], x: &[T]) {
        let n = self.count();
        rows(out, &self.view().read(x), n);
    }
}

const PIECE: usize = 1 << 14;

/// Sum in pieces whose sums are added in order.
fn chunked<T: Real>(x: &[T], n: usize) -> T {
    if n <= PIECE {
        return sum(x);
    }
    let parts: Vec<T> = x.par_chunks(PIECE).map(sum).collect();
    sum(&parts)
}

fn rows<T: Real>(out: &mut [T], x: &[T], n: usize) {
    let per = (PIECE / n.max(1)).max(1);
    out.par_chunks_mut(per).zip(x.par_chunks(per * n)).for_each(|(out, x)| {
        out.iter_mut().zip(x.chunks(n)).for_each(|(y, row)| *y = sum(row));
    });
}

fn columns<T: Real>(out: &mut [T], x: &[T], n: usize) {
    let total = x.len() / n;
    let per = (PIECE / n).max(total.div_ceil(16)).max(1);
    if total <= per {
        return x.chunks(n).for_each(|row| axpy(out, T::one(), row));
    }
    let part = |x: &[T]| {
        let mut part = vec![T::zero(); n];
        x.chunks(n).for_each(|row| axpy(&mut part, T::one(), row));
        part
    };
    let parts: Vec<Vec<T>> = x.par_chunks(per * n).map(part).collect();
    parts.iter().for_each(|p| axpy(out, T::one(), p));
}

fn planes<T: Real>(out: &mut [T], x: &[T], (n, c, l): (usize, usize, usize)) {
    let per = (PIECE / (n * l)).max(1);
    out.par_chunks_mut(per).enumerate().for_each(|(chunk, out)| {
        for (k, y) in out.iter_mut().enumerate() {
            let channel = chunk * per + k;
            *y = (0..n).map(|i| sum(&x[(i * c + channel) * l..][..l])).sum();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_any_axes() {
        let dims = [3, 4, 5, 2];
        let x = Array::new(&dims, (0..120).map(|i| (i * i % 37) as f64).collect());
        for mask in 0..16u32 {
            let reduced: Vec<bool> = (0..4).map(|k| mask >> k & 1 == 1).collect();
            let got = Blocks::new(&dims, &reduced).sum(&x);
            let mut want = vec![0.0; got.len()];
            for (i, v) in x.data().iter().enumerate() {
                let index = [i / 40, i / 10 % 4, i / 2 % 5, i % 2];
                let at = (0..4).filter(|&k| !reduced[k]).fold(0, |at, k| at * dims[k] + index[k]);
                want[at] += v;
            }
            assert_eq!(got.data(), want, "{reduced:?}");
        }
        let empty = Array::<f64>::zeros(&[0, 3]);
        assert_eq!(Blocks::new(&[0, 3], &[true, false]).sum(&empty).data(), [0.0; 3]);
    }

    #[test]
    fn long_sums_do_not_depend_on_threads() {
        let x = Array::new(&[300, 70], (0..21_000).map(|i| ((i % 97) as f32).sin()).collect());
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                [[true, false], [false, true], [true, true]]
                    .map(|r| Blocks::new(&[300, 70], &r).sum(&x).data().to_vec())
            })
        };
        assert_eq!(run(1), run(3));
    }
}
