//! Convolution with stride 1 without unrolling: in a padded plane, what one tap of the kernel sees is the plane itself from
//! another position on. So a tap is a matrix product with a shifted view; columns between the rows of the output come out
//! as garbage and are left out (in the gradients, as zeros).

use super::conv_geometry::ConvGeometry;
use super::{Real, gemm};

/// Buffers of one thread, for planes of height and width.
pub(super) struct Shifted<'a, T> {
    g: &'a ConvGeometry,
    /// Width and size of a padded plane.
    wide: usize,
    padded_len: usize,
    /// Padded input planes of one group, and their gradients.
    padded: Vec<T>,
    /// The same with channels last.
    turned: Vec<T>,
    /// Output planes of one group with rows as wide as the padded input's.
    rows: Vec<T>,
}

/// Fewer channels than this make products too thin.
const LEAST_CHANNELS: usize = 8;

impl ConvGeometry {
    /// Whether [`Shifted`] computes this convolution, and is worth it.
    pub(super) fn is_shifted(&self) -> bool {
        let flat = self.input[0] == 1 && self.kernel[0] == 1 && self.output[0] == 1;
        let padded = self.pad.iter().all(|&p| p >= 0) && self.pad[0] == 0;
        // Garbage between short rows of a wide kernel costs more than unrolling.
        let dense = 2 * self.output[2] >= self.padded_width();
        flat && padded && dense && self.stride == [1; 3] && self.inputs >= LEAST_CHANNELS
    }

    fn padded_width(&self) -> usize {
        (self.output[2] + (self.kernel[2] - 1) * self.dilation[2]).max(1)
    }

    fn padded_height(&self) -> usize {
        self.output[1] + (self.kernel[1] - 1) * self.dilation[1]
    }
}

impl<'a, T: Real> Shifted<'a, T> {
    pub fn new(g: &'a ConvGeometry) -> Self {
        let wide = g.padded_width();
        let padded_len = wide * g.padded_height();
        let buffer = |n: usize| vec![T::zero(); n];
        Self {
            g,
            wide,
            padded_len,
            padded: buffer(g.inputs * padded_len),
            turned: vec![],
            rows: buffer(g.outputs * g.output[1] * wide),
        }
    }

    /// Columns from the first to the last element of the output, in rows of the padded width.
    fn columns(&self) -> usize {
        self.g.output[1] * self.wide - (self.wide - self.g.output[2])
    }

    /// Where the part of the input that the padded plane has lies: rows, columns, and the shift in the plane.
    fn inside(&self) -> (usize, usize, usize) {
        let (top, left) = (self.g.pad[1] as usize, self.g.pad[2] as usize);
        let height = self.g.input[1].min(self.g.padded_height().saturating_sub(top));
        let width = self.g.input[2].min(self.wide.saturating_sub(left));
        (height, width, top * self.wide + left)
    }

    fn pad(&mut self, x: &[T]) {
        let (height, width, shift) = self.inside();
        let (h, w) = (self.g.input[1], self.g.input[2]);
        for (plane, x) in self.padded.chunks_exact_mut(self.padded_len).zip(x.chunks_exact(h * w)) {
            for row in 0..height {
                plane[shift + row * self.wide..][..width].copy_from_slice(&x[row * w..][..width]);
            }
        }
    }

    /// `[position, channel]` from `[channel, position]`.
    fn turn(&mut self) {
        let (c, n) = (self.g.inputs, self.padded_len);
        self.turned.resize(c * n, T::zero());
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

    /// Output gradients into rows of the padded width, zeros between them.
    fn spread(&mut self, dy: &[T]) {
        let (h, w) = (self.g.output[1], self.g.output[2]);
        for (plane, dy) in self.rows.chunks_exact_mut(h * self.wide).zip(dy.chunks_exact(h * w)) {
            for (row, dy) in plane.chunks_exact_mut(self.wide).zip(dy.chunks_exact(w)) {
                row[..w].copy_from_slice(dy);
                row[w..].fill(T::zero());
            }
        }
    }

    /// For each tap of the kernel: its number and its shift in the padded plane.
    fn taps(&self) -> impl Iterator<Item = (usize, usize)> + use<T> {
        let ([_, kh, kw], [_, dh, dw]) = (self.g.kernel, self.g.dilation);
        let wide = self.wide;
        (0..kh * kw).map(move |t| (t, t / kw * dh * wide + t % kw * dw))
    }

    /// One group of one sample: adds to `y`, which holds the bias.
    pub fn forward(&mut self, x: &[T], w: &[T], y: &mut [T]) {
        self.pad(x);
        let (g, n) = (self.g, self.columns());
        let (count, span) = (g.kernel[1] * g.kernel[2], g.output[1] * self.wide);
        for (tap, shift) in self.taps() {
            let beta = if tap == 0 { T::zero() } else { T::one() };
            let (w, x) = ((&w[tap..], (g.inputs * count, count)), (&self.padded[shift..], (self.padded_len, 1)));
            gemm((g.outputs, g.inputs, n), T::one(), w, x, beta, (&mut self.rows, (span, 1)));
        }
        let (h, w) = (g.output[1], g.output[2]);
        for (plane, y) in self.rows.chunks_exact(span).zip(y.chunks_exact_mut(h * w)) {
            for (row, y) in plane.chunks_exact(self.wide).zip(y.chunks_exact_mut(w)) {
                y.iter_mut().zip(row).for_each(|(y, &r)| *y += r);
            }
        }
    }

    /// One group of one sample. `dw` is in the order `[output, kernel, input]`: see [`Shifted::ordered`].
    pub fn backward(&mut self, x: &[T], w: &[T], dy: &[T], dx: Option<&mut [T]>, dw: Option<&mut [T]>) {
        let (g, n) = (self.g, self.columns());
        let (count, span) = (g.kernel[1] * g.kernel[2], g.output[1] * self.wide);
        self.spread(dy);
        if let Some(dw) = dw {
            self.padded.fill(T::zero()); // the padding holds what a gradient left there
            self.pad(x);
            self.turn();
            // Where taps are neighbours, a row of the kernel sees neighbouring positions: one product for all of it.
            let joined = if g.dilation[2] == 1 { g.kernel[2] } else { 1 };
            for (tap, shift) in self.taps().step_by(joined) {
                let columns = joined * g.inputs;
                let (dy, x) = ((&self.rows[..], (span, 1)), (&self.turned[shift * g.inputs..], (g.inputs, 1)));
                let target = (&mut dw[tap * g.inputs..], (count * g.inputs, 1));
                gemm((g.outputs, n, columns), T::one(), dy, x, T::one(), target);
            }
        }
        if let Some(dx) = dx {
            self.padded.fill(T::zero());
            for (tap, shift) in self.taps() {
                let (w, dy) = ((&w[tap..], (count, g.inputs * count)), (&self.rows[..], (span, 1)));
                let target = (&mut self.padded[shift..], (self.padded_len, 1));
                gemm((g.inputs, g.outputs, n), T::one(), w, dy, T::one(), target);
            }
            let (height, width, shift) = self.inside();
            let (h, w) = (g.input[1], g.input[2]);
            for (plane, dx) in self.padded.chunks_exact(self.padded_len).zip(dx.chunks_exact_mut(h * w)) {
                for row in 0..height {
                    let from = &plane[shift + row * self.wide..][..width];
                    dx[row * w..][..width].iter_mut().zip(from).for_each(|(d, &x)| *d += x);
                }
            }
        }
    }

    /// `[output, kernel, input]` as `[output, input, kernel]`.
    pub fn ordered(g: &ConvGeometry, dw: &[T]) -> Vec<T> {
        let count = g.kernel[1] * g.kernel[2];
        let one = |w: &[T]| -> Vec<T> { (0..g.inputs * count).map(|k| w[k % count * g.inputs + k / count]).collect() };
        dw.chunks_exact((g.inputs * count).max(1)).flat_map(one).collect()
    }
}
