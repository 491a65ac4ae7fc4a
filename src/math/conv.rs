//! Convolution of up to three spatial axes: products over unrolled windows (im2col), and direct loops where each group has
//! one input channel (depthwise).
//!
//! Windows are unrolled a band of output rows at a time, so that a band stays in the cache between unrolling and product.

use super::parallel::{axpy, dot};
use super::{Real, gemm, sum};
use rayon::prelude::*;

/// Sizes of a convolution. Spatial axes are depth, height, width; those that there are not have size 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvGeometry {
    /// Samples.
    pub batch: usize,
    /// Groups of channels that do not see each other.
    pub groups: usize,
    /// Input channels per group.
    pub inputs: usize,
    /// Output channels per group.
    pub outputs: usize,
    /// Spatial size of the input.
    pub input: [usize; 3],
    /// Spatial size of the output.
    pub output: [usize; 3],
    /// Size of the kernel.
    pub kernel: [usize; 3],
    /// Steps between windows.
    pub stride: [usize; 3],
    /// Steps between the elements of a window.
    pub dilation: [usize; 3],
    /// Padding before.
    pub pad: [isize; 3],
}

/// Elements of an unrolled band.
const BAND: usize = 1 << 16;

/// Elements that all partial weight gradients may take together.
const PARTIALS: usize = 1 << 24;

impl ConvGeometry {
    fn plane_in(&self) -> usize {
        self.input.iter().product()
    }

    fn plane_out(&self) -> usize {
        self.output.iter().product()
    }

    fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Elements of a window over all input channels of a group.
    fn depth(&self) -> usize {
        self.inputs * self.taps()
    }

    fn weight_len(&self) -> usize {
        self.groups * self.outputs * self.depth()
    }

    /// Elements of one input sample.
    pub fn sample_in(&self) -> usize {
        self.groups * self.inputs * self.plane_in()
    }

    /// Elements of one output sample.
    pub fn sample_out(&self) -> usize {
        self.groups * self.outputs * self.plane_out()
    }

    fn is_depthwise(&self) -> bool {
        self.inputs == 1 && self.groups > 1
    }

    /// Whether the unrolled input is the input.
    fn is_pointwise(&self) -> bool {
        self.taps() == 1 && self.stride == [1; 3] && self.pad == [0; 3]
    }

    /// Output rows per band.
    fn band_rows(&self) -> usize {
        let rows = self.output[0] * self.output[1];
        let per_row = (self.depth() * self.output[2]).max(1);
        (BAND / per_row).clamp(1, rows.max(1))
    }

    fn bands(&self) -> impl Iterator<Item = (usize, usize)> {
        let (rows, step) = (self.output[0] * self.output[1], self.band_rows());
        (0..rows).step_by(step).map(move |r| (r, (r + step).min(rows)))
    }

    /// Along an axis: the outputs whose window has its tap `k` inside the input, and the input of the first of them.
    fn inside(&self, axis: usize, k: usize) -> (usize, usize, usize) {
        let (stride, n) = (self.stride[axis] as isize, self.input[axis] as isize);
        let first = (k * self.dilation[axis]) as isize - self.pad[axis];
        let low = if first >= 0 { 0 } else { (-first + stride - 1) / stride };
        let high = if first >= n { 0 } else { (n - first + stride - 1) / stride };
        let high = high.min(self.output[axis] as isize).max(low);
        (low as usize, high as usize, (first + low * stride).max(0) as usize)
    }

    /// Input row (flat over depth and height) that output row `row` meets with taps `kd`, `kh`.
    fn source_row(&self, row: usize, kd: usize, kh: usize) -> Option<usize> {
        let at = |axis: usize, out: usize, k: usize| {
            let i = (out * self.stride[axis] + k * self.dilation[axis]) as isize - self.pad[axis];
            usize::try_from(i).ok().filter(|&i| i < self.input[axis])
        };
        let (d, h) = (row / self.output[1], row % self.output[1]);
        Some(at(0, d, kd)? * self.input[1] + at(1, h, kh)?)
    }

    /// For each tap: its place in the kernel, and its depth, height and width.
    fn each_tap(&self, mut work: impl FnMut(usize, usize, usize, usize)) {
        let mut tap = 0;
        for kd in 0..self.kernel[0] {
            for kh in 0..self.kernel[1] {
                for kw in 0..self.kernel[2] {
                    work(tap, kd, kh, kw);
                    tap += 1;
                }
            }
        }
    }

    /// Writes the windows of output rows `rows` as columns: `[depth, rows * width]`.
    fn unroll<T: Real>(&self, x: &[T], (from, to): (usize, usize), columns: &mut [T]) {
        let (wide, stride, width_in) = (self.output[2], self.stride[2], self.input[2]);
        let mut line = 0;
        let span = (to - from) * wide;
        for channel in x.chunks_exact(self.plane_in()) {
            self.each_tap(|_, kd, kh, kw| {
                let (low, high, first) = self.inside(2, kw);
                let target = &mut columns[line * span..][..span];
                line += 1;
                for (row, out) in (from..to).zip(target.chunks_exact_mut(wide)) {
                    let Some(source) = self.source_row(row, kd, kh) else {
                        out.fill(T::zero());
                        continue;
                    };
                    out[..low].fill(T::zero());
                    out[high..].fill(T::zero());
                    let inside = &mut out[low..high];
                    if inside.is_empty() {
                        continue;
                    }
                    let source = &channel[source * width_in + first..];
                    if stride == 1 {
                        inside.copy_from_slice(&source[..inside.len()]);
                    } else {
                        inside.iter_mut().zip(source.iter().step_by(stride)).for_each(|(y, &x)| *y = x);
                    }
                }
            });
        }
    }

    /// Adds columns, as [`ConvGeometry::unroll`] lays them out, to where they came from.
    fn roll<T: Real>(&self, columns: &[T], (from, to): (usize, usize), dx: &mut [T]) {
        let (wide, stride, width_in) = (self.output[2], self.stride[2], self.input[2]);
        let mut line = 0;
        let span = (to - from) * wide;
        for channel in dx.chunks_exact_mut(self.plane_in()) {
            self.each_tap(|_, kd, kh, kw| {
                let (low, high, first) = self.inside(2, kw);
                let values = &columns[line * span..][..span];
                line += 1;
                for (row, dy) in (from..to).zip(values.chunks_exact(wide)) {
                    let Some(target) = self.source_row(row, kd, kh) else { continue };
                    let dy = &dy[low..high];
                    if dy.is_empty() {
                        continue;
                    }
                    let target = &mut channel[target * width_in + first..];
                    if stride == 1 {
                        target.iter_mut().zip(dy).for_each(|(x, &y)| *x += y);
                    } else {
                        target.iter_mut().step_by(stride).zip(dy).for_each(|(x, &y)| *x += y);
                    }
                }
            });
        }
    }
}

/// `y = x * w + b`. `x`: `[batch, groups * inputs, ...]`, `w`: `[groups * outputs, inputs, kernel...]`, `b`: one per output
/// channel; the result: `[batch, groups * outputs, ...]`.
pub fn conv_forward<T: Real>(g: &ConvGeometry, x: &[T], w: &[T], b: Option<&[T]>) -> Vec<T> {
    let mut y = vec![T::zero(); g.batch * g.sample_out()];
    if y.is_empty() {
        return y;
    }
    let plane = g.plane_out();
    y.par_chunks_mut(g.sample_out()).enumerate().for_each(|(n, y)| {
        let x = &x[n * g.sample_in()..][..g.sample_in()];
        if let Some(b) = b {
            y.chunks_exact_mut(plane).zip(b).for_each(|(y, &b)| y.fill(b));
        }
        if g.is_depthwise() {
            return depthwise_sample(g, x, w, y);
        }
        let mut columns =
            if g.is_pointwise() { vec![] } else { vec![T::zero(); g.depth() * g.band_rows() * g.output[2]] };
        for k in 0..g.groups {
            let x = &x[k * g.inputs * g.plane_in()..][..g.inputs * g.plane_in()];
            let w = &w[k * g.outputs * g.depth()..][..g.outputs * g.depth()];
            let y = &mut y[k * g.outputs * plane..][..g.outputs * plane];
            let layout = (g.depth(), 1);
            if g.is_pointwise() {
                gemm((g.outputs, g.depth(), plane), T::one(), (w, layout), (x, (plane, 1)), T::one(), (y, (plane, 1)));
                continue;
            }
            for (from, to) in g.bands() {
                let span = (to - from) * g.output[2];
                g.unroll(x, (from, to), &mut columns);
                let y = &mut y[from * g.output[2]..];
                let (w, columns) = ((w, layout), (&columns[..], (span, 1)));
                gemm((g.outputs, g.depth(), span), T::one(), w, columns, T::one(), (y, (plane, 1)));
            }
        }
    });
    y
}

/// Gradients of `x`, `w` and `b` (empty where not wanted) from the gradient of `y`.
pub fn conv_backward<T: Real>(g: &ConvGeometry, x: &[T], w: &[T], dy: &[T], wants: [bool; 3]) -> [Vec<T>; 3] {
    let mut dx = vec![T::zero(); if wants[0] { g.batch * g.sample_in() } else { 0 }];
    let weights = if wants[1] { g.weight_len() } else { 0 };
    let biases = if wants[2] { g.groups * g.outputs } else { 0 };
    if g.batch == 0 || g.sample_out() == 0 {
        return [dx, vec![T::zero(); weights], vec![T::zero(); biases]];
    }
    // The samples of one part are added up one after another, then the parts: the same whatever the threads.
    let most = (PARTIALS / g.weight_len().max(1)).clamp(1, 16);
    let per_part = g.batch.div_ceil(most.min(g.batch));
    let part = |k: usize, mut dx: Option<&mut [T]>| {
        let (mut dw, mut db) = (vec![T::zero(); weights], vec![T::zero(); biases]);
        let mut columns = vec![T::zero(); if g.is_depthwise() { 0 } else { g.depth() * g.band_rows() * g.output[2] }];
        for n in k * per_part..((k + 1) * per_part).min(g.batch) {
            let local = (n - k * per_part) * g.sample_in();
            let dx = dx.as_mut().map(|dx| &mut dx[local..][..g.sample_in()]);
            let x = &x[n * g.sample_in()..][..g.sample_in()];
            let dy = &dy[n * g.sample_out()..][..g.sample_out()];
            if wants[2] {
                db.iter_mut().zip(dy.chunks_exact(g.plane_out())).for_each(|(b, dy)| *b += sum(dy));
            }
            let dw = wants[1].then_some(&mut dw[..]);
            if g.is_depthwise() {
                depthwise_sample_backward(g, x, w, dy, dx, dw);
            } else {
                sample_backward(g, (x, w, dy), dx, dw, &mut columns);
            }
        }
        (dw, db)
    };
    let parts: Vec<_> = if wants[0] {
        dx.par_chunks_mut(per_part * g.sample_in()).enumerate().map(|(k, dx)| part(k, Some(dx))).collect()
    } else {
        (0..g.batch.div_ceil(per_part)).into_par_iter().map(|k| part(k, None)).collect()
    };
    let mut parts = parts.into_iter();
    let (mut dw, mut db) = parts.next().unwrap_or_default();
    for (w, b) in parts {
        axpy(&mut dw, T::one(), &w);
        axpy(&mut db, T::one(), &b);
    }
    [dx, dw, db]
}

fn sample_backward<T: Real>(
    g: &ConvGeometry,
    (x, w, dy): (&[T], &[T], &[T]),
    mut dx: Option<&mut [T]>,
    mut dw: Option<&mut [T]>,
    columns: &mut [T],
) {
    let (plane_in, plane, depth, one) = (g.plane_in(), g.plane_out(), g.depth(), T::one());
    for k in 0..g.groups {
        let x = &x[k * g.inputs * plane_in..][..g.inputs * plane_in];
        let w = &w[k * g.outputs * depth..][..g.outputs * depth];
        let dy = &dy[k * g.outputs * plane..][..g.outputs * plane];
        let mut dx = dx.as_mut().map(|dx| &mut dx[k * g.inputs * plane_in..][..g.inputs * plane_in]);
        let mut dw = dw.as_mut().map(|dw| &mut dw[k * g.outputs * depth..][..g.outputs * depth]);
        if g.is_pointwise() {
            if let Some(dw) = &mut dw {
                let (dy, x) = ((dy, (plane, 1)), (x, (1, plane)));
                gemm((g.outputs, plane, depth), one, dy, x, one, (dw, (depth, 1)));
            }
            if let Some(dx) = &mut dx {
                let (w, dy) = ((w, (1, depth)), (dy, (plane, 1)));
                gemm((depth, g.outputs, plane), one, w, dy, one, (dx, (plane, 1)));
            }
            continue;
        }
        for (from, to) in g.bands() {
            let span = (to - from) * g.output[2];
            let dy = &dy[from * g.output[2]..];
            if let Some(dw) = &mut dw {
                g.unroll(x, (from, to), columns);
                let (dy, columns) = ((dy, (plane, 1)), (&columns[..], (1, span)));
                gemm((g.outputs, span, depth), one, dy, columns, one, (dw, (depth, 1)));
            }
            if let Some(dx) = &mut dx {
                let target = (&mut columns[..], (span, 1));
                gemm((depth, g.outputs, span), one, (w, (1, depth)), (dy, (plane, 1)), T::zero(), target);
                g.roll(columns, (from, to), dx);
            }
        }
    }
}

/// Calls `work(tap, input position, output position, length)` for every run of outputs along the last axis that one tap of
/// the kernel meets inside the input.
fn runs(g: &ConvGeometry, mut work: impl FnMut(usize, usize, usize, usize)) {
    g.each_tap(|tap, kd, kh, kw| {
        let (low, high, first) = g.inside(2, kw);
        if low == high {
            return;
        }
        for row in 0..g.output[0] * g.output[1] {
            if let Some(source) = g.source_row(row, kd, kh) {
                work(tap, source * g.input[2] + first, row * g.output[2] + low, high - low);
            }
        }
    });
}

fn depthwise_sample<T: Real>(g: &ConvGeometry, x: &[T], w: &[T], y: &mut [T]) {
    let (taps, stride) = (g.taps(), g.stride[2]);
    for (c, y) in y.chunks_exact_mut(g.plane_out()).enumerate() {
        let (x, w) = (&x[c / g.outputs * g.plane_in()..][..g.plane_in()], &w[c * taps..][..taps]);
        runs(g, |tap, from, to, len| {
            let (x, y) = (&x[from..], &mut y[to..to + len]);
            if stride == 1 {
                axpy(y, w[tap], x);
            } else {
                y.iter_mut().zip(x.iter().step_by(stride)).for_each(|(y, &x)| *y += w[tap] * x);
            }
        });
    }
}

fn depthwise_sample_backward<T: Real>(
    g: &ConvGeometry,
    x: &[T],
    w: &[T],
    dy: &[T],
    mut dx: Option<&mut [T]>,
    mut dw: Option<&mut [T]>,
) {
    let (taps, stride, plane_in) = (g.taps(), g.stride[2], g.plane_in());
    for (c, dy) in dy.chunks_exact(g.plane_out()).enumerate() {
        let (at, w) = (c / g.outputs * plane_in, &w[c * taps..][..taps]);
        let x = &x[at..][..plane_in];
        if let Some(dw) = &mut dw {
            let dw = &mut dw[c * taps..][..taps];
            runs(g, |tap, from, to, len| {
                let dy = &dy[to..to + len];
                dw[tap] += if stride == 1 {
                    dot(dy, &x[from..from + len])
                } else {
                    dy.iter().zip(x[from..].iter().step_by(stride)).map(|(&a, &b)| a * b).sum()
                };
            });
        }
        if let Some(dx) = &mut dx {
            let dx = &mut dx[at..][..plane_in];
            runs(g, |tap, from, to, len| {
                let dy = &dy[to..to + len];
                if stride == 1 {
                    axpy(&mut dx[from..], w[tap], dy);
                } else {
                    dx[from..].iter_mut().step_by(stride).zip(dy).for_each(|(x, &y)| *x += w[tap] * y);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition.
    fn naive(g: &ConvGeometry, x: &[f64], w: &[f64]) -> Vec<f64> {
        let mut y = vec![];
        for n in 0..g.batch {
            for co in 0..g.groups * g.outputs {
                for o in 0..g.plane_out() {
                    let o = [o / (g.output[1] * g.output[2]), o / g.output[2] % g.output[1], o % g.output[2]];
                    let mut total = 0.0;
                    for ci in 0..g.inputs {
                        g.each_tap(|tap, kd, kh, kw| {
                            let k = [kd, kh, kw];
                            let i: Vec<isize> = (0..3)
                                .map(|a| (o[a] * g.stride[a] + k[a] * g.dilation[a]) as isize - g.pad[a])
                                .collect();
                            if (0..3).all(|a| i[a] >= 0 && i[a] < g.input[a] as isize) {
                                let c = n * g.groups * g.inputs + co / g.outputs * g.inputs + ci;
                                let at = (i[0] as usize * g.input[1] + i[1] as usize) * g.input[2] + i[2] as usize;
                                total += x[c * g.plane_in() + at] * w[(co * g.inputs + ci) * g.taps() + tap];
                            }
                        });
                    }
                    y.push(total);
                }
            }
        }
        y
    }

    fn numbers(n: usize, seed: u64) -> Vec<f64> {
        (0..n as u64).map(|i| ((i * 2_654_435_761 + seed * 97) % 1000) as f64 / 500.0 - 1.0).collect()
    }

    fn geometry(
        groups: usize,
        inputs: usize,
        outputs: usize,
        stride: usize,
        dilation: usize,
        pad: isize,
    ) -> ConvGeometry {
        let (input, kernel) = ([4, 9, 7], [2, 3, 3]);
        let size =
            |a: usize| (input[a] as isize + 2 * pad - ((kernel[a] - 1) * dilation) as isize - 1) as usize / stride + 1;
        ConvGeometry {
            batch: 3,
            groups,
            inputs,
            outputs,
            input,
            output: [size(0), size(1), size(2)],
            kernel,
            stride: [stride; 3],
            dilation: [dilation; 3],
            pad: [pad; 3],
        }
    }

    #[test]
    fn forward_and_backward_agree_with_the_definition() {
        for (groups, inputs, outputs) in [(1, 3, 4), (2, 2, 3), (4, 1, 1), (3, 1, 2), (1, 1, 2)] {
            for (stride, dilation, pad) in [(1, 1, 0), (1, 1, 1), (2, 1, 1), (3, 1, 2), (1, 2, 2), (2, 2, 3)] {
                let g = geometry(groups, inputs, outputs, stride, dilation, pad);
                let (x, w) = (numbers(g.batch * g.sample_in(), 1), numbers(g.weight_len(), 2));
                let y = conv_forward(&g, &x, &w, None);
                let want = naive(&g, &x, &w);
                let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
                assert!(y.len() == want.len() && close(&y, &want), "{g:?}");
                // Linear in each: the gradient of <dy, y> is found with unit vectors by way of the adjoint.
                let dy = numbers(y.len(), 3);
                let [dx, dw, db] = conv_backward(&g, &x, &w, &dy, [true; 3]);
                let inner = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                let (x2, w2) = (numbers(x.len(), 4), numbers(w.len(), 5));
                assert!((inner(&dx, &x2) - inner(&dy, &naive(&g, &x2, &w))).abs() < 1e-9, "dx {g:?}");
                assert!((inner(&dw, &w2) - inner(&dy, &naive(&g, &x, &w2))).abs() < 1e-9, "dw {g:?}");
                let total: f64 = dy.iter().sum();
                assert!((db.iter().sum::<f64>() - total).abs() < 1e-9);
            }
        }
    }
}
