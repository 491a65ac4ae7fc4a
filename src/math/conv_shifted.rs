//! Convolution with stride 1 without unrolling: in a padded plane, what one tap of the kernel sees is the plane itself from
//! another position on. So every term of a sum is a run of values at a place of its own; columns between the rows of the
//! output come out as garbage and are left out.
//!
//! Gradients are products of the same form: that of the input is a convolution of the output's gradient with the kernel
//! turned round, that of the weight a sum over positions of the input with channels last.

use super::Real;
use super::conv_geometry::ConvGeometry;
use super::tile::{PackedRows, SLACK};

impl ConvGeometry {
    /// Whether [`ShiftedForward`] and [`ShiftedWeight`] compute this convolution, and are worth it.
    pub(super) fn is_shifted(&self) -> bool {
        let flat = self.input[0] == 1 && self.kernel[0] == 1 && self.output[0] == 1;
        let padded = self.pad.iter().all(|&p| p >= 0) && self.pad[0] == 0;
        // Garbage between short rows of a wide kernel costs more than unrolling.
        let dense = 2 * self.output[2] >= self.padded_width();
        let empty = self.sample_in() == 0 || self.sample_out() == 0 || self.taps() == 0;
        flat && padded && dense && !empty && self.stride == [1; 3]
    }

    /// The convolution that takes the output's gradient to the input's, with the weight of [`turned_weight`], where there is
    /// one: with stride 1.
    pub(super) fn adjoint(&self) -> Option<Self> {
        if self.stride != [1; 3] || self.taps() == 0 {
            return None;
        }
        let reach = |axis: usize| ((self.kernel[axis] - 1) * self.dilation[axis]) as isize;
        Some(Self {
            inputs: self.outputs,
            outputs: self.inputs,
            input: self.output,
            output: self.input,
            pad: [0, 1, 2].map(|axis| reach(axis) - self.pad[axis]),
            ..self.clone()
        })
    }

    fn padded_width(&self) -> usize {
        (self.output[2] + (self.kernel[2] - 1) * self.dilation[2]).max(1)
    }

    fn padded_plane(&self) -> usize {
        self.padded_width() * (self.output[1] + (self.kernel[1] - 1) * self.dilation[1])
    }

    /// Shifts of the taps of the kernel in the padded plane.
    fn shifts(&self) -> impl Iterator<Item = usize> {
        let ([_, kh, kw], [_, dh, dw]) = (self.kernel, self.dilation);
        (0..kh * kw).map(move |t| t / kw * dh * self.padded_width() + t % kw * dw)
    }

    /// The planes of a group into planes with padding, where they have stayed zero.
    fn pad_planes<T: Real>(&self, x: &[T], padded: &mut [T]) {
        let (wide, top, left) = (self.padded_width(), self.pad[1] as usize, self.pad[2] as usize);
        let ([_, h, w], plane) = (self.input, self.padded_plane());
        let height = h.min((plane / wide).saturating_sub(top));
        let width = w.min(wide.saturating_sub(left));
        for (plane, x) in padded.chunks_exact_mut(plane.max(1)).zip(x.chunks_exact((h * w).max(1))) {
            for row in 0..height {
                plane[(top + row) * wide + left..][..width].copy_from_slice(&x[row * w..][..width]);
            }
        }
    }
}

/// `[group, input, output, kernel]`, the kernel turned round, from `[group, output, input, kernel]`.
pub(super) fn turned_weight<T: Real>(g: &ConvGeometry, w: &[T]) -> Vec<T> {
    let taps = g.taps();
    let mut turned = Vec::with_capacity(w.len());
    for group in w.chunks_exact((g.outputs * g.depth()).max(1)) {
        for input in 0..g.inputs {
            let kernels = group.chunks_exact(g.depth()).map(|w| &w[input * taps..][..taps]);
            kernels.for_each(|kernel| turned.extend(kernel.iter().rev()));
        }
    }
    turned
}

/// The forward pass, with the weight of each group packed once for all samples.
pub(super) struct ShiftedForward<'a, T> {
    g: &'a ConvGeometry,
    weights: Vec<PackedRows<T>>,
    /// Where the values that the weights meet begin.
    at: Vec<usize>,
}

impl<'a, T: Real> ShiftedForward<'a, T> {
    pub fn new(g: &'a ConvGeometry, w: &[T]) -> Self {
        let pack = |w: &[T]| {
            let mut packed = PackedRows::new(g.outputs, g.depth());
            packed.pack(|r| w[r * g.depth()..][..g.depth()].iter().copied());
            packed
        };
        let weights = w.chunks_exact((g.outputs * g.depth()).max(1)).map(pack).collect();
        let at = (0..g.inputs).flat_map(|c| g.shifts().map(move |s| c * g.padded_plane() + s)).collect();
        Self { g, weights, at }
    }

    /// Room for the padded planes of a group, and for its output in rows of the padded width.
    pub fn buffers(&self) -> [Vec<T>; 2] {
        let rows = self.g.outputs * self.g.output[1] * self.g.padded_width();
        [self.g.inputs * self.g.padded_plane() + SLACK, rows].map(|n| vec![T::zero(); n])
    }

    /// One sample: adds the products to `y`.
    pub fn add(&self, x: &[T], y: &mut [T], [padded, rows]: &mut [Vec<T>; 2]) {
        let (g, wide) = (self.g, self.g.padded_width());
        let [_, height, width] = g.output;
        let (span, columns) = (height * wide, height * wide - (wide - width));
        let planes = x.chunks_exact(g.inputs * g.plane_in()).zip(y.chunks_exact_mut(g.outputs * g.plane_out()));
        for (weights, (x, y)) in self.weights.iter().zip(planes) {
            g.pad_planes(x, padded);
            rows.fill(T::zero());
            weights.times(&self.at, padded, columns, (rows, span));
            for (row, y) in rows.chunks_exact(wide).zip(y.chunks_exact_mut(width)) {
                y.iter_mut().zip(row).for_each(|(y, &r)| *y += r);
            }
        }
    }
}

/// The gradient of the weight.
pub(super) struct ShiftedWeight<'a, T> {
    g: &'a ConvGeometry,
    padded: Vec<T>,
    /// The padded planes of a group with channels last.
    turned: Vec<T>,
    /// The output's gradient of a group.
    dy: PackedRows<T>,
    /// Where the window of each position of the output begins in `turned`.
    at: Vec<usize>,
}

impl<'a, T: Real> ShiftedWeight<'a, T> {
    pub fn new(g: &'a ConvGeometry) -> Self {
        let (wide, width) = (g.padded_width(), g.output[2]);
        let len = g.inputs * g.padded_plane();
        Self {
            g,
            padded: vec![T::zero(); len],
            turned: vec![T::zero(); len + SLACK],
            dy: PackedRows::new(g.outputs, g.plane_out()),
            at: (0..g.plane_out()).map(|p| (p / width * wide + p % width) * g.inputs).collect(),
        }
    }

    /// One sample: adds to `dw`, which is in the order `[output, kernel, input]`: see [`ShiftedWeight::ordered`].
    pub fn add(&mut self, x: &[T], dy: &[T], dw: &mut [T]) {
        let (g, taps, plane) = (self.g, self.g.taps(), self.g.plane_out());
        // Where taps are neighbours, a row of the kernel sees neighbouring positions: one product for all of it.
        let joined = if g.dilation[2] == 1 { g.kernel[2] } else { 1 };
        let samples = x.chunks_exact(g.inputs * g.plane_in()).zip(dy.chunks_exact(g.outputs * plane));
        for ((x, dy), dw) in samples.zip(dw.chunks_exact_mut(g.outputs * g.depth())) {
            g.pad_planes(x, &mut self.padded);
            self.turn();
            self.dy.pack(|r| dy[r * plane..][..plane].iter().copied());
            for (tap, shift) in g.shifts().enumerate().step_by(joined) {
                let target = (&mut dw[tap * g.inputs..], taps * g.inputs);
                self.dy.times(&self.at, &self.turned[shift * g.inputs..], joined * g.inputs, target);
            }
        }
    }

    /// `[position, channel]` from `[channel, position]`.
    fn turn(&mut self) {
        let (c, n) = (self.g.inputs, self.g.padded_plane());
        // Blocks of positions stay in the first cache.
        const BLOCK: usize = 64;
        for from in (0..n).step_by(BLOCK) {
            let to = (from + BLOCK).min(n);
            for (k, plane) in self.padded.chunks_exact(n).enumerate() {
                let targets = self.turned[from * c..to * c].chunks_exact_mut(c);
                targets.zip(&plane[from..to]).for_each(|(t, &x)| t[k] = x);
            }
        }
    }

    /// `[output, kernel, input]` as `[output, input, kernel]`.
    pub fn ordered(g: &ConvGeometry, dw: &[T]) -> Vec<T> {
        let count = g.taps();
        let one = |w: &[T]| -> Vec<T> { (0..g.inputs * count).map(|k| w[k % count * g.inputs + k / count]).collect() };
        dw.chunks_exact((g.inputs * count).max(1)).flat_map(one).collect()
    }
}
