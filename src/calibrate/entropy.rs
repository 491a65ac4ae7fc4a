//! The range that keeps most of the distribution's information (Migacz, 8-bit Inference with TensorRT, GTC 2017).

use super::range::Distribution;
use super::{RangeSpec, Statistics};

/// Bins of the distribution: between half as many and this many are used, so 2,048 or more.
const BINS: usize = 4096;
/// The search is meaningless where a level has fewer bins than this at full range.
const BINS_PER_LEVEL: usize = 4;
/// Ends that are tried on either side.
const CANDIDATES: usize = 128;
/// Rounds of coordinate descent where both ends move.
const ROUNDS: usize = 3;
/// Probability given to what the quantized distribution cannot represent.
const FLOOR: f64 = 1e-12;

/// The range with the smallest divergence; everything observed where the levels are too many for the bins.
///
/// Exact zeros do not count. One-sided and symmetric ranges have one end to find; two ends are found alternately.
pub(super) fn search(statistics: &Statistics, spec: &RangeSpec) -> (f64, f64) {
    let mut bins = Distribution::without_zeros(statistics, BINS);
    let mut levels = spec.steps() as usize + 1;
    if spec.symmetric {
        bins = bins.folded();
        levels = levels.div_ceil(2);
    }
    let n = bins.counts.len();
    let zero = (-bins.first) as usize;
    let edge = |k: usize| (k as f64 - zero as f64) * bins.width;
    let (mut a, mut b) = (0, n);
    if n >= levels * BINS_PER_LEVEL {
        let window = Window::new(&bins.counts, levels);
        let step = (n / CANDIDATES).max(1);
        for _ in 0..ROUNDS {
            let before = (a, b);
            if b > zero {
                b = best((zero.max(a + levels)..=n).rev().step_by(step), b, |b| window.divergence(a, b));
            }
            if a < zero {
                a = best((0..=zero.min(b.saturating_sub(levels))).step_by(step), a, |a| window.divergence(a, b));
            }
            if (a, b) == before {
                break;
            }
        }
    }
    if spec.symmetric { (-edge(b), edge(b)) } else { (edge(a), edge(b)) }
}

/// The candidate with the smallest divergence, the first among equals; `current` where there is none.
fn best(candidates: impl Iterator<Item = usize>, current: usize, divergence: impl Fn(usize) -> f64) -> usize {
    let mut found = (f64::INFINITY, current);
    for k in candidates {
        let d = divergence(k);
        if d < found.0 {
            found = (d, k);
        }
    }
    found.1
}

/// Sums over the bins, so that a window's divergence takes time in the number of levels only.
struct Window<'a> {
    counts: &'a [f64],
    levels: usize,
    /// Over the first `k` bins: their values, their `n ln n`, and how many are occupied.
    below: Vec<Sums>,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    values: f64,
    information: f64,
    occupied: f64,
}

impl<'a> Window<'a> {
    fn new(counts: &'a [f64], levels: usize) -> Self {
        let mut total = Sums::default();
        let mut below = vec![total];
        for &n in counts {
            total.values += n;
            total.information += information(n);
            total.occupied += occupied(n);
            below.push(total);
        }
        Self { counts, levels, below }
    }

    /// Divergence of the distribution clipped to bins `a..b` from the same quantized to the levels and back.
    ///
    /// The clipped one has the values outside in its outermost bins; the quantized one lacks them, and spreads each
    /// level evenly over its occupied bins. So clipping much, and coarse levels, both cost. With counts `c` of the
    /// clipped bins, `T` of all and shares `q` of the quantized, it is `(sum c ln c - T ln T - sum c ln q) / T`.
    fn divergence(&self, a: usize, b: usize) -> f64 {
        let (first, end) = (self.below[a], self.below[b]);
        let (total, inside) = (self.below[self.counts.len()].values, end.values - first.values);
        if inside <= 0.0 {
            return f64::INFINITY;
        }
        let low = Outlier::at(self.counts[a], first.values);
        let high = Outlier::at(self.counts[b - 1], total - end.values);
        let mut sum = end.information - first.information + low.information + high.information - information(total);
        let edge = |level: usize| self.below[a + level * (b - a) / self.levels];
        let mut from = first;
        for level in 0..self.levels {
            let to = edge(level + 1);
            let (mut clipped, mut bins) = (to.values - from.values, to.occupied - from.occupied);
            let share = clipped;
            for (outlier, at) in [(&low, 0), (&high, self.levels - 1)] {
                if level == at {
                    clipped += outlier.values;
                    bins += outlier.occupied;
                }
            }
            if clipped > 0.0 {
                sum -= clipped * (share / bins.max(1.0) / inside).max(FLOOR).ln();
            }
            from = to;
        }
        sum / total
    }
}

/// What values from outside add to the sums of the outermost bin.
struct Outlier {
    values: f64,
    information: f64,
    occupied: f64,
}

impl Outlier {
    fn at(count: f64, values: f64) -> Self {
        let information = information(count + values) - information(count);
        Self { values, information, occupied: occupied(count + values) - occupied(count) }
    }
}

fn information(n: f64) -> f64 {
    if n > 0.0 { n * n.ln() } else { 0.0 }
}

fn occupied(n: f64) -> f64 {
    if n > 0.0 { 1.0 } else { 0.0 }
}
