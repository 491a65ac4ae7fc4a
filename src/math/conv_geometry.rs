//! Sizes of a convolution, and unrolling its windows.

use super::Real;

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

impl ConvGeometry {
    pub(super) fn plane_in(&self) -> usize {
        self.input.iter().product()
    }

    pub(super) fn plane_out(&self) -> usize {
        self.output.iter().product()
    }

    pub(super) fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Elements of a window over all input channels of a group.
    pub(super) fn depth(&self) -> usize {
        self.inputs * self.taps()
    }

    pub(super) fn weight_len(&self) -> usize {
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

    pub(super) fn is_depthwise(&self) -> bool {
        self.inputs == 1 && self.groups > 1
    }

    /// Whether the unrolled input is the input.
    pub(super) fn is_pointwise(&self) -> bool {
        self.taps() == 1 && self.stride == [1; 3] && self.pad == [0; 3]
    }

    /// Output rows per band.
    pub(super) fn band_rows(&self) -> usize {
        let rows = self.output[0] * self.output[1];
        let per_row = (self.depth() * self.output[2]).max(1);
        (BAND / per_row).clamp(1, rows.max(1))
    }

    /// Room for the unrolled windows of a band.
    pub(super) fn columns<T: Real>(&self) -> Vec<T> {
        let direct = self.is_depthwise() || self.is_pointwise();
        vec![T::zero(); if direct { 0 } else { self.depth() * self.band_rows() * self.output[2] }]
    }

    pub(super) fn bands(&self) -> impl Iterator<Item = (usize, usize)> {
        let (rows, step) = (self.output[0] * self.output[1], self.band_rows());
        (0..rows).step_by(step).map(move |r| (r, (r + step).min(rows)))
    }

    /// Along an axis: the outputs whose window has its tap `k` inside the input, and the input of the first of them.
    pub(super) fn inside(&self, axis: usize, k: usize) -> (usize, usize, usize) {
        let (stride, n) = (self.stride[axis] as isize, self.input[axis] as isize);
        let first = (k * self.dilation[axis]) as isize - self.pad[axis];
        let low = if first >= 0 { 0 } else { (-first + stride - 1) / stride };
        let high = if first >= n { 0 } else { (n - first + stride - 1) / stride };
        let high = high.min(self.output[axis] as isize).max(low);
        (low as usize, high as usize, (first + low * stride).max(0) as usize)
    }

    /// Input row (flat over depth and height) that output row `row` meets with taps `kd`, `kh`.
    pub(super) fn source_row(&self, row: usize, kd: usize, kh: usize) -> Option<usize> {
        let at = |axis: usize, out: usize, k: usize| {
            let i = (out * self.stride[axis] + k * self.dilation[axis]) as isize - self.pad[axis];
            usize::try_from(i).ok().filter(|&i| i < self.input[axis])
        };
        let (d, h) = (row / self.output[1], row % self.output[1]);
        Some(at(0, d, kd)? * self.input[1] + at(1, h, kh)?)
    }

    /// For each tap: its place in the kernel, and its depth, height and width.
    pub(super) fn each_tap(&self, mut work: impl FnMut(usize, usize, usize, usize)) {
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
    pub(super) fn unroll<T: Real>(&self, x: &[T], (from, to): (usize, usize), columns: &mut [T]) {
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
    pub(super) fn roll<T: Real>(&self, columns: &[T], (from, to): (usize, usize), dx: &mut [T]) {
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
