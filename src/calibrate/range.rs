//! From statistics to the range that is quantized.

use super::histogram::{MAX_BINS, exponent_for, power_of_two};
use super::{RangeSpec, Statistics, entropy, mse};
use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How a range is derived from statistics. Spelled `minmax`, `percentile=99.99`, `entropy`, `mse`.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Method {
    /// Everything that was observed.
    #[default]
    MinMax,
    /// This percentage of the values: half of the rest is clipped at either end, or all of it by magnitude where the
    /// range is symmetric. Above 50, at most 100.
    Percentile(f64),
    /// The range whose quantized distribution diverges least (Kullback-Leibler) from the observed one
    /// (Migacz, 8-bit Inference with TensorRT, GTC 2017).
    Entropy,
    /// The range whose quantization has the smallest expected squared error.
    Mse,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MinMax => f.write_str("minmax"),
            Self::Percentile(p) => write!(f, "percentile={p}"),
            Self::Entropy => f.write_str("entropy"),
            Self::Mse => f.write_str("mse"),
        }
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "minmax" => return Ok(Self::MinMax),
            "entropy" => return Ok(Self::Entropy),
            "mse" => return Ok(Self::Mse),
            _ => {}
        }
        let Some(number) = text.strip_prefix("percentile=") else {
            let known = "minmax, percentile=99.99, entropy or mse";
            return Err(Error::usage(format!("unknown calibration method \"{text}\": expected {known}")));
        };
        let percent = number.parse().ok().filter(|p: &f64| *p > 50.0 && *p <= 100.0);
        let wrong = || Error::usage(format!("percentile \"{number}\": expected a number above 50, at most 100"));
        percent.map(Self::Percentile).ok_or_else(wrong)
    }
}

impl TryFrom<String> for Method {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Method> for String {
    fn from(method: Method) -> Self {
        method.to_string()
    }
}

/// The range `(low, high)` to quantize, `low <= 0 <= high`; `(-t, t)` where `spec` is symmetric. It never exceeds the
/// observed one, and is `(0, 0)` where nothing but zeros, or nothing, was observed.
pub fn range(statistics: &Statistics, method: Method, spec: &RangeSpec) -> (f32, f32) {
    let (low, high) = (statistics.min.min(0.0), statistics.max.max(0.0));
    let (low, high) = if spec.symmetric { mirrored(low, high) } else { (low, high) };
    if low == high {
        return (0.0, 0.0);
    }
    let (l, h) = match method {
        Method::MinMax => return (low, high),
        Method::Percentile(p) => percentile(statistics, p, spec),
        Method::Entropy => entropy::search(statistics, spec),
        Method::Mse => mse::search(statistics, (low, high), spec),
    };
    let (l, h) = ((l as f32).clamp(low, 0.0), (h as f32).clamp(0.0, high));
    // A range of nothing although there is something: almost all values are zero.
    if l == h {
        return (low, high);
    }
    if spec.symmetric { mirrored(l, h) } else { (l, h) }
}

fn mirrored(low: f32, high: f32) -> (f32, f32) {
    let t = high.max(-low);
    (-t, t)
}

fn percentile(statistics: &Statistics, percent: f64, spec: &RangeSpec) -> (f64, f64) {
    let bins = Distribution::with_zeros(statistics, MAX_BINS);
    if spec.symmetric {
        let t = bins.folded().quantile(percent / 100.0);
        return (-t, t);
    }
    let cut = (100.0 - percent) / 200.0;
    (bins.quantile(cut), bins.quantile(1.0 - cut))
}

/// A histogram over an interval that contains zero, as an edge or inside.
pub(super) struct Distribution {
    /// Width of a bin.
    pub width: f64,
    /// Index of the first bin, which begins at `first * width`; not positive.
    pub first: i64,
    /// Values per bin.
    pub counts: Vec<f64>,
}

impl Distribution {
    /// All values, in at most `limit` bins.
    fn with_zeros(statistics: &Statistics, limit: usize) -> Self {
        let (low, high) = (statistics.min.min(0.0), statistics.max.max(0.0));
        let (mut exponent, mut bounds);
        exponent = exponent_for(low, high).max(statistics.exponent);
        loop {
            let inverse = power_of_two(-exponent);
            let floor = |x: f32| (f64::from(x) * inverse).floor() as i64;
            bounds = (floor(low), floor(high));
            if bounds.1 - bounds.0 < limit as i64 {
                break;
            }
            exponent += 1;
        }
        let mut counts = vec![0.0; (bounds.1 - bounds.0 + 1) as usize];
        let shift = (exponent - statistics.exponent).min(31);
        let (first, observed) = statistics.bins();
        for (k, n) in observed.enumerate() {
            let index = i64::from((first + k as i32) >> shift);
            counts[(index - bounds.0) as usize] += n as f64;
        }
        Self { width: power_of_two(exponent), first: bounds.0, counts }
    }

    /// Values that are not exactly zero, in at most `limit` bins: zero is represented exactly whatever the range, and
    /// after Relu there are so many that they would hide everything else.
    pub fn without_zeros(statistics: &Statistics, limit: usize) -> Self {
        let mut all = Self::with_zeros(statistics, limit);
        let zero = (-all.first) as usize;
        all.counts[zero] -= statistics.zeros as f64;
        all
    }

    /// The distribution of the magnitudes.
    pub fn folded(&self) -> Self {
        let zero = (-self.first) as usize;
        let (negative, positive) = self.counts.split_at(zero);
        let mut counts = positive.to_vec();
        counts.resize(positive.len().max(negative.len()), 0.0);
        for (total, n) in counts.iter_mut().zip(negative.iter().rev()) {
            *total += n;
        }
        Self { width: self.width, first: 0, counts }
    }

    /// The point that has the share `q` of the values below it, interpolated within its bin.
    fn quantile(&self, q: f64) -> f64 {
        let target = q * self.counts.iter().sum::<f64>();
        let mut below = 0.0;
        let mut end = 0.0;
        for (index, &n) in (self.first..).zip(&self.counts) {
            if n == 0.0 {
                continue;
            }
            if below + n >= target {
                return (index as f64 + (target - below) / n) * self.width;
            }
            below += n;
            end = (index + 1) as f64 * self.width;
        }
        end
    }
}

#[cfg(test)]
#[path = "range_tests.rs"]
mod tests;
