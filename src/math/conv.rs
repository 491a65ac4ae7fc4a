//! Convolution of up to three spatial axes: with stride 1 in a plane, sums of shifted planes (`conv_shifted`); direct loops
//! where each group has one input channel (depthwise); otherwise products over unrolled windows (im2col).
//!
//! Windows are unrolled a band of output rows at a time, so that a band stays in the cache between unrolling and product.

use super::conv_geometry::ConvGeometry;
use super::conv_shifted::{ShiftedForward, ShiftedWeight, turned_weight};
use super::depthwise::{depthwise_sample, depthwise_sample_backward};
use super::parallel::axpy;
use super::{Real, gemm, sum};
use rayon::prelude::*;
use std::ops::Range;

/// Elements that all partial weight gradients may take together.
const PARTIALS: usize = 1 << 24;

/// `y = x * w + b`. `x`: `[batch, groups * inputs, ...]`, `w`: `[groups * outputs, inputs, kernel...]`, `b`: one per output
/// channel; the result: `[batch, groups * outputs, ...]`.
pub fn conv_forward<T: Real>(g: &ConvGeometry, x: &[T], w: &[T], b: Option<&[T]>) -> Vec<T> {
    let mut y = vec![T::zero(); g.batch * g.sample_out()];
    if y.is_empty() {
        return y;
    }
    let biased = |y: &mut [T]| {
        if let Some(b) = b {
            y.chunks_exact_mut(g.plane_out()).zip(b).for_each(|(y, &b)| y.fill(b));
        }
    };
    let samples = y.par_chunks_mut(g.sample_out()).enumerate();
    let x = |n: usize| &x[n * g.sample_in()..][..g.sample_in()];
    if g.is_depthwise() {
        samples.for_each(|(n, y)| {
            biased(y);
            depthwise_sample(g, x(n), w, y);
        });
    } else if g.is_shifted() {
        let shifted = ShiftedForward::new(g, w);
        samples.for_each_init(
            || shifted.buffers(),
            |buffers, (n, y)| {
                biased(y);
                shifted.add(x(n), y, buffers);
            },
        );
    } else {
        samples.for_each(|(n, y)| {
            biased(y);
            unrolled_sample(g, x(n), w, y);
        });
    }
    y
}

/// One sample, added to `y`.
fn unrolled_sample<T: Real>(g: &ConvGeometry, x: &[T], w: &[T], y: &mut [T]) {
    let (plane, layout) = (g.plane_out(), (g.depth(), 1));
    let mut columns = g.columns();
    for k in 0..g.groups {
        let x = &x[k * g.inputs * g.plane_in()..][..g.inputs * g.plane_in()];
        let w = &w[k * g.outputs * g.depth()..][..g.outputs * g.depth()];
        let y = &mut y[k * g.outputs * plane..][..g.outputs * plane];
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
}

/// `len` elements from `at` on; nothing where there is nothing: without gradients of the weight the input is not looked at.
pub(super) fn part_of<T>(x: &[T], at: usize, len: usize) -> &[T] {
    if x.is_empty() { x } else { &x[at..at + len] }
}

/// Gradients of `x`, `w` and `b` (empty where not wanted) from the gradient of `y`. `x` may be empty where the gradient of `w`
/// is not wanted.
pub fn conv_backward<T: Real>(g: &ConvGeometry, x: &[T], w: &[T], dy: &[T], wants: [bool; 3]) -> [Vec<T>; 3] {
    let empty = g.batch == 0 || g.sample_out() == 0;
    let by_adjoint = if wants[0] && !empty { adjoint_gradient(g, w, dy) } else { None };
    let mut dx = vec![T::zero(); if wants[0] && by_adjoint.is_none() { g.batch * g.sample_in() } else { 0 }];
    if empty {
        let zeros = |wanted: bool, n: usize| vec![T::zero(); if wanted { n } else { 0 }];
        return [dx, zeros(wants[1], g.weight_len()), zeros(wants[2], g.groups * g.outputs)];
    }
    // The samples of one part are added up one after another, then the parts: the same whatever the threads.
    let most = (PARTIALS / g.weight_len().max(1)).clamp(1, 16);
    let per_part = g.batch.div_ceil(most.min(g.batch));
    let part = |k: usize, dx: Option<&mut [T]>| {
        part_backward(g, (x, w, dy), k * per_part..((k + 1) * per_part).min(g.batch), dx, wants)
    };
    let parts: Vec<_> = if dx.is_empty() {
        (0..g.batch.div_ceil(per_part)).into_par_iter().map(|k| part(k, None)).collect()
    } else {
        dx.par_chunks_mut(per_part * g.sample_in()).enumerate().map(|(k, dx)| part(k, Some(dx))).collect()
    };
    let mut parts = parts.into_iter();
    let (mut dw, mut db) = parts.next().unwrap_or_default();
    for (w, b) in parts {
        axpy(&mut dw, T::one(), &w);
        axpy(&mut db, T::one(), &b);
    }
    let dw = if wants[1] && by_shifts(g) { ShiftedWeight::ordered(g, &dw) } else { dw };
    [by_adjoint.unwrap_or(dx), dw, db]
}

/// Whether the gradient of the weight is found in shifted planes.
fn by_shifts(g: &ConvGeometry) -> bool {
    g.is_shifted() && !g.is_depthwise()
}

/// The gradient of the input as the convolution that it is, where that may be computed in shifted planes too.
fn adjoint_gradient<T: Real>(g: &ConvGeometry, w: &[T], dy: &[T]) -> Option<Vec<T>> {
    let adjoint = g.adjoint().filter(|a| by_shifts(g) && a.is_shifted())?;
    Some(conv_forward(&adjoint, dy, &turned_weight(g, w), None))
}

/// Gradients of `w` and `b`, where they are wanted, over these samples, and of `x` into `dx`.
fn part_backward<T: Real>(
    g: &ConvGeometry,
    (x, w, dy): (&[T], &[T], &[T]),
    samples: Range<usize>,
    mut dx: Option<&mut [T]>,
    [_, wants_weight, wants_bias]: [bool; 3],
) -> (Vec<T>, Vec<T>) {
    let mut dw = vec![T::zero(); if wants_weight { g.weight_len() } else { 0 }];
    let mut db = vec![T::zero(); if wants_bias { g.groups * g.outputs } else { 0 }];
    let mut shifted = (wants_weight && by_shifts(g)).then(|| ShiftedWeight::new(g));
    let mut columns = if shifted.is_some() && dx.is_none() { vec![] } else { g.columns() };
    for (local, n) in samples.enumerate() {
        let dx = dx.as_mut().map(|dx| &mut dx[local * g.sample_in()..][..g.sample_in()]);
        let x = part_of(x, n * g.sample_in(), g.sample_in());
        let dy = &dy[n * g.sample_out()..][..g.sample_out()];
        if wants_bias {
            db.iter_mut().zip(dy.chunks_exact(g.plane_out())).for_each(|(b, dy)| *b += sum(dy));
        }
        let mut dw = wants_weight.then_some(&mut dw[..]);
        if let Some(shifted) = &mut shifted
            && let Some(dw) = dw.take()
        {
            shifted.add(x, dy, dw);
        }
        match () {
            () if dx.is_none() && dw.is_none() => {}
            () if g.is_depthwise() => depthwise_sample_backward(g, x, w, dy, dx, dw),
            () => unrolled_sample_backward(g, (x, w, dy), dx, dw, &mut columns),
        }
    }
    (dw, db)
}

fn unrolled_sample_backward<T: Real>(
    g: &ConvGeometry,
    (x, w, dy): (&[T], &[T], &[T]),
    mut dx: Option<&mut [T]>,
    mut dw: Option<&mut [T]>,
    columns: &mut [T],
) {
    let (plane_in, plane, depth, one) = (g.plane_in(), g.plane_out(), g.depth(), T::one());
    for k in 0..g.groups {
        let x = part_of(x, k * g.inputs * plane_in, g.inputs * plane_in);
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
        let (mut shifted, mut unrolled) = (0, 0);
        let channels = [(1, 3, 4), (2, 2, 3), (4, 1, 1), (3, 1, 2), (1, 1, 2), (1, 8, 3), (2, 9, 8)];
        let windows = [(1, 1, 0), (1, 1, 1), (2, 1, 1), (3, 1, 2), (1, 2, 2), (2, 2, 3), (1, 1, 4)];
        for ((groups, inputs, outputs), flat) in channels.into_iter().flat_map(|c| [(c, false), (c, true)]) {
            for (stride, dilation, pad) in windows {
                let mut g = geometry(groups, inputs, outputs, stride, dilation, pad);
                if flat {
                    (g.input[0], g.kernel[0], g.output[0], g.pad[0]) = (1, 1, 1, 0);
                }
                *if g.is_shifted() { &mut shifted } else { &mut unrolled } += 1;
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
        assert!(shifted >= 20 && unrolled >= 20, "{shifted} {unrolled}");
    }
}
