//! Pools over windows of up to three spatial axes.

use super::Real;
use rayon::prelude::*;

/// Sizes of a pool. Spatial axes are depth, height, width; those that there are not have size 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolGeometry {
    /// Planes: samples times channels.
    pub planes: usize,
    /// Spatial size of the input.
    pub input: [usize; 3],
    /// Spatial size of the output.
    pub output: [usize; 3],
    /// Size of the window.
    pub kernel: [usize; 3],
    /// Steps between windows.
    pub stride: [usize; 3],
    /// Steps between the elements of a window.
    pub dilation: [usize; 3],
    /// Padding before.
    pub pad: [isize; 3],
    /// Padding after.
    pub pad_after: [isize; 3],
    /// Whether an average counts the elements of the padding.
    pub count_padding: bool,
}

impl PoolGeometry {
    fn plane_in(&self) -> usize {
        self.input.iter().product()
    }

    fn plane_out(&self) -> usize {
        self.output.iter().product()
    }

    /// Positions of the elements of a window that lie in the input.
    fn window(&self, out: usize, mut work: impl FnMut(usize)) {
        let [_, h, w] = self.output;
        let out = [out / (h * w), out / w % h, out % w];
        let at = |axis: usize, k: usize| {
            let i = (out[axis] * self.stride[axis] + k * self.dilation[axis]) as isize - self.pad[axis];
            usize::try_from(i).ok().filter(|&i| i < self.input[axis])
        };
        for d in (0..self.kernel[0]).filter_map(|k| at(0, k)) {
            for h in (0..self.kernel[1]).filter_map(|k| at(1, k)) {
                for w in (0..self.kernel[2]).filter_map(|k| at(2, k)) {
                    work((d * self.input[1] + h) * self.input[2] + w);
                }
            }
        }
    }

    /// What each window's sum is divided by.
    fn divisors<T: Real>(&self) -> Vec<T> {
        let padded = |axis: usize, out: usize| {
            let end = self.input[axis] as isize + self.pad_after[axis];
            let start = (out * self.stride[axis]) as isize - self.pad[axis];
            let taps = (0..self.kernel[axis]).map(|k| start + (k * self.dilation[axis]) as isize);
            taps.filter(|&i| i < end).count()
        };
        let [_, h, w] = self.output;
        let of = |out: usize| {
            let mut count = 0;
            if self.count_padding {
                count = padded(0, out / (h * w)) * padded(1, out / w % h) * padded(2, out % w);
            } else {
                self.window(out, |_| count += 1);
            }
            T::of(count.max(1) as f64)
        };
        (0..self.plane_out()).map(of).collect()
    }

    fn planes<T: Send>(&self, out: &mut [T], size: usize, work: impl Fn(usize, &mut [T]) + Sync) {
        if size > 0 {
            out.par_chunks_mut(size).enumerate().for_each(|(k, plane)| work(k, plane));
        }
    }
}

/// Largest element of each window, and its position in its plane (the first of equal ones). A window without elements
/// gives the lowest number and no position.
pub fn max_forward<T: Real>(g: &PoolGeometry, x: &[T]) -> (Vec<T>, Vec<u32>) {
    let size = g.plane_out();
    let mut best = vec![(T::neg_infinity(), u32::MAX); g.planes * size];
    g.planes(&mut best, size, |k, best| {
        let x = &x[k * g.plane_in()..][..g.plane_in()];
        for (out, best) in best.iter_mut().enumerate() {
            g.window(out, |i| {
                if x[i] > best.0 || best.1 == u32::MAX || (x[i].is_nan() && !best.0.is_nan()) {
                    *best = (x[i], i as u32);
                }
            });
        }
    });
    best.into_iter().unzip()
}

/// Gradient of the input of a maximum: all of it goes to the largest element.
pub fn max_backward<T: Real>(g: &PoolGeometry, positions: &[u32], dy: &[T]) -> Vec<T> {
    let (size, plane) = (g.plane_out(), g.plane_in());
    let mut dx = vec![T::zero(); g.planes * plane];
    g.planes(&mut dx, plane, |k, dx| {
        for (at, &dy) in positions[k * size..][..size].iter().zip(&dy[k * size..][..size]) {
            if let Some(dx) = dx.get_mut(*at as usize) {
                *dx += dy;
            }
        }
    });
    dx
}

/// Average of each window.
pub fn average_forward<T: Real>(g: &PoolGeometry, x: &[T]) -> Vec<T> {
    let (size, divisors) = (g.plane_out(), g.divisors::<T>());
    let mut y = vec![T::zero(); g.planes * size];
    g.planes(&mut y, size, |k, y| {
        let x = &x[k * g.plane_in()..][..g.plane_in()];
        for (out, (y, &by)) in y.iter_mut().zip(&divisors).enumerate() {
            let mut total = T::zero();
            g.window(out, |i| total += x[i]);
            *y = total / by;
        }
    });
    y
}

/// Gradient of the input of an average.
pub fn average_backward<T: Real>(g: &PoolGeometry, dy: &[T]) -> Vec<T> {
    let (size, plane, divisors) = (g.plane_out(), g.plane_in(), g.divisors::<T>());
    let mut dx = vec![T::zero(); g.planes * plane];
    g.planes(&mut dx, plane, |k, dx| {
        for (out, (&dy, &by)) in dy[k * size..][..size].iter().zip(&divisors).enumerate() {
            g.window(out, |i| dx[i] += dy / by);
        }
    });
    dx
}
