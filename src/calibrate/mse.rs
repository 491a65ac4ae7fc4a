//! The range with the smallest expected squared error of quantizing and dequantizing: rounding within it against
//! clipping outside.

use super::histogram::MAX_BINS;
use super::range::Distribution;
use super::{QuantParams, RangeSpec, Statistics};

/// Shrinkages tried, evenly on a logarithmic scale from 1 to [`SMALLEST`].
const CANDIDATES: usize = 128;
/// Smallest share of the observed range that is tried.
const SMALLEST: f64 = 0.02;
/// Points tried between the neighbours of the best candidate.
const REFINED: usize = 16;
/// Rounds of coordinate descent where both ends move.
const ROUNDS: usize = 3;
/// With more levels than this, cells are narrower than the histogram resolves and rounding errors are uniform.
const MAX_CELLS: i32 = 1024;

/// The best range within `(low, high)`. A one-sided or symmetric range has one end to find; two ends are first shrunk
/// together, then moved alternately.
pub(super) fn search(statistics: &Statistics, (low, high): (f32, f32), spec: &RangeSpec) -> (f64, f64) {
    let moments = Moments::of(&Distribution::without_zeros(statistics, MAX_BINS));
    let error = |l: f64, h: f64| moments.error(&QuantParams::from_range(l as f32, h as f32, spec), spec);
    let (low, high) = (f64::from(low), f64::from(high));
    let together = minimize(|t| error(t * low, t * high));
    let mut found = (together * low, together * high);
    if spec.symmetric || low == 0.0 || high == 0.0 {
        return found;
    }
    for _ in 0..ROUNDS {
        let before = found;
        let h = high * minimize(|t| error(found.0, t * high));
        found = better(error, found, (found.0, h));
        let l = low * minimize(|t| error(t * low, found.1));
        found = better(error, found, (l, found.1));
        if found == before {
            break;
        }
    }
    // An end that is nearly empty may be better off without any level.
    let found = better(error, found, (0.0, found.1));
    better(error, found, (found.0, 0.0))
}

fn better(error: impl Fn(f64, f64) -> f64, a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    if error(b.0, b.1) < error(a.0, a.1) { b } else { a }
}

/// The `t` in `SMALLEST..=1` with the smallest `error(t)`; the largest among equals.
fn minimize(error: impl Fn(f64) -> f64) -> f64 {
    let candidate = |k: usize| SMALLEST.powf(k as f64 / (CANDIDATES - 1) as f64);
    let first = |mut ts: Vec<f64>| {
        ts.sort_by(|a, b| b.total_cmp(a));
        let scored = ts.into_iter().enumerate().map(|(k, t)| (error(t), k, t));
        scored.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))).map_or((0, 1.0), |(_, k, t)| (k, t))
    };
    let (k, t) = first((0..CANDIDATES).map(candidate).collect());
    let (from, to) = (candidate(k.saturating_sub(1)), candidate((k + 1).min(CANDIDATES - 1)));
    let between = (1..REFINED).map(|i| from + (to - from) * i as f64 / REFINED as f64);
    first(between.chain([t]).collect()).1
}

/// Integrals of the density, which is taken to be constant within each bin.
struct Moments {
    width: f64,
    first: f64,
    counts: Vec<f64>,
    /// Number, sum and sum of squares of the values below each bin, and below the end.
    below: Vec<[f64; 3]>,
}

impl Moments {
    fn of(bins: &Distribution) -> Self {
        let (width, first) = (bins.width, bins.first as f64);
        let mut total = [0.0; 3];
        let mut below = vec![total];
        for (k, &n) in bins.counts.iter().enumerate() {
            let start = (first + k as f64) * width;
            let part = partial(n, width, start, start + width);
            total = [total[0] + part[0], total[1] + part[1], total[2] + part[2]];
            below.push(total);
        }
        Self { width, first, counts: bins.counts.clone(), below }
    }

    /// Number, sum and sum of squares of the values below `x`.
    fn until(&self, x: f64) -> [f64; 3] {
        let at = x / self.width - self.first;
        if at <= 0.0 {
            return [0.0; 3];
        }
        let k = at as usize;
        if k >= self.counts.len() {
            return self.below[self.counts.len()];
        }
        let part = partial(self.counts[k], self.width, (self.first + k as f64) * self.width, x);
        let below = self.below[k];
        [below[0] + part[0], below[1] + part[1], below[2] + part[2]]
    }

    /// Sum of the squared errors under these parameters.
    fn error(&self, params: &QuantParams, spec: &RangeSpec) -> f64 {
        let scale = f64::from(params.scale);
        let (first, last) = (spec.qmin - params.zero_point, spec.qmax - params.zero_point);
        let end = self.below[self.counts.len()];
        if spec.steps() > MAX_CELLS {
            let (low, high) = (f64::from(first) * scale, f64::from(last) * scale);
            let (below, above) = (self.until(low), self.until(high));
            let rounding = (above[0] - below[0]) * scale * scale / 12.0;
            return rounding + squares_about(low, [0.0; 3], below) + squares_about(high, above, end);
        }
        let mut error = 0.0;
        let mut from = [0.0; 3];
        for level in first..=last {
            let centre = f64::from(level) * scale;
            let to = if level == last { end } else { self.until(centre + scale / 2.0) };
            error += squares_about(centre, from, to);
            from = to;
        }
        error
    }
}

/// Number, sum and sum of squares of the part of a bin (`n` values over `width`) between `start` and `end`.
fn partial(n: f64, width: f64, start: f64, end: f64) -> [f64; 3] {
    let part = n * (end - start) / width;
    [part, part * (start + end) / 2.0, part * (start * start + start * end + end * end) / 3.0]
}

/// Sum of `(x - centre)^2` over the values between two points, given the sums below either.
fn squares_about(centre: f64, from: [f64; 3], to: [f64; 3]) -> f64 {
    let (n, sum, squares) = (to[0] - from[0], to[1] - from[1], to[2] - from[2]);
    (squares - 2.0 * centre * sum + centre * centre * n).max(0.0)
}
