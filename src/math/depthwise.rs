//! Convolutions whose groups have one input channel each (depthwise), computed directly.

use super::Real;
use super::conv::part_of;
use super::conv_geometry::ConvGeometry;
use super::parallel::{axpy, dot};

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

/// One sample, added to `y`.
pub(super) fn depthwise_sample<T: Real>(g: &ConvGeometry, x: &[T], w: &[T], y: &mut [T]) {
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

/// Gradients of one sample.
pub(super) fn depthwise_sample_backward<T: Real>(
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
        let x = part_of(x, at, plane_in);
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
