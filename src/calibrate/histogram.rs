//! One-pass statistics of a stream of values, in constant memory.
//!
//! The histogram lies on an absolute grid: bin `i` holds `[i w, (i + 1) w)` with `w = 2^e`, so zero is always an edge.
//! `e` is the smallest exponent at which the observed `[min, max]` spans at most [`MAX_BINS`] bins; it follows from the
//! extremes alone. Widening the range merges pairs of bins, which is exact because
//! `floor(floor(x / w) / 2) = floor(x / 2w)`. Together: equal data give equal statistics, however they were split into
//! batches, in whatever order these came, and on however many threads.

use crate::error::{Error, Result};
use std::fmt;

/// Bins that the occupied range spans at most; it spans more than half as many wherever f32 resolves that much.
pub const MAX_BINS: usize = 8192;
/// Bin indices stay below this magnitude, so that rounding by [`MAGIC`] is exact.
const MAX_INDEX: f64 = 4_194_303.0;
/// The narrowest bin: the smallest normal f32.
const MIN_EXPONENT: i32 = -126;
/// `x + MAGIC - MAGIC` rounds `x` to an integer where `|x| < 2^22`, and `MAGIC`'s low bits then hold that integer.
const MAGIC: f32 = 12_582_912.0;
/// Lanes of the vector loops.
const LANES: usize = 16;
/// Values whose bins are computed together.
const BLOCK: usize = 256;
/// Spare cells for zeros; a power of two.
const SPILL: usize = 16;
/// Longest slice scanned at once, so that 32-bit counters cannot overflow.
const CHUNK: usize = 1 << 30;

/// A value that no range can hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NonFinite {
    /// Not a number.
    Nan,
    /// Plus or minus infinity.
    Infinity,
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nan => "NaN",
            Self::Infinity => "infinity",
        })
    }
}

impl From<NonFinite> for Error {
    fn from(found: NonFinite) -> Self {
        Error::data(format!("{found} among the values; no quantization range can be derived from them"))
    }
}

/// Exact extremes, counts and a histogram of a stream of finite f32 values.
#[derive(Clone, PartialEq, Debug)]
pub struct Statistics {
    pub(super) min: f32,
    pub(super) max: f32,
    pub(super) count: u64,
    pub(super) zeros: u64,
    pub(super) exponent: i32,
    /// Bin `i` is at `i mod MAX_BINS`: the occupied bins never collide, and growing at an end moves nothing. Empty
    /// before the first value.
    ring: Vec<u64>,
}

impl Default for Statistics {
    fn default() -> Self {
        Self { min: 0.0, max: 0.0, count: 0, zeros: 0, exponent: MIN_EXPONENT, ring: Vec::new() }
    }
}

impl Statistics {
    /// Statistics of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Smallest value; 0 if there is none.
    pub fn min(&self) -> f32 {
        self.min
    }

    /// Largest value; 0 if there is none.
    pub fn max(&self) -> f32 {
        self.max
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Number of values that are exactly zero.
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// The bins' width is 2 to this power.
    pub fn exponent(&self) -> i32 {
        self.exponent
    }

    /// Index of the first bin (that of the minimum) and the counts from there to the bin of the maximum.
    pub fn bins(&self) -> (i32, impl ExactSizeIterator<Item = u64> + '_) {
        let (first, len) = match self.count {
            0 => (0, 0),
            _ => span(self.min, self.max, self.exponent),
        };
        (first, (0..len).map(move |k| self.ring[slot(first.wrapping_add(k as i32))]))
    }

    /// Adds values.
    ///
    /// # Errors
    /// A NaN or an infinity among them; the statistics are then unchanged.
    pub fn update(&mut self, values: &[f32]) -> Result<(), NonFinite> {
        let Some(scan) = Scan::of(values)? else { return Ok(()) };
        self.widen(scan.min, scan.max);
        self.count += values.len() as u64;
        self.zeros += scan.zeros;
        self.bin(values, scan.zeros);
        Ok(())
    }

    /// Adds the values that `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.widen(other.min, other.max);
        let shift = self.shift_from(other.exponent);
        let (first, counts) = other.bins();
        for (k, n) in counts.enumerate() {
            self.ring[slot((first + k as i32) >> shift)] += n;
        }
        self.count += other.count;
        self.zeros += other.zeros;
    }

    /// Statistics from their parts, as a saved table has them; `counts` are those of consecutive bins from `first`.
    ///
    /// # Errors
    /// Parts that contradict each other; the message says which.
    pub(super) fn from_parts(
        extremes: (f32, f32),
        zeros: u64,
        exponent: i32,
        first: i32,
        counts: &[u64],
    ) -> Result<Self> {
        let (min, max) = extremes;
        let total = counts.iter().try_fold(0u64, |sum, &n| sum.checked_add(n));
        let count = total.ok_or_else(|| Error::data("the counts overflow"))?;
        if count == 0 {
            return Ok(Self::default());
        }
        if !min.is_finite() || !max.is_finite() || min > max {
            return Err(Error::data(format!("the range {min} to {max} is not one")));
        }
        if exponent != exponent_for(min, max) || (first, counts.len()) != span(min, max, exponent) {
            return Err(Error::data(format!("the bins do not fit the range {min} to {max}")));
        }
        let mut ring = vec![0; MAX_BINS];
        for (k, &n) in counts.iter().enumerate() {
            ring[slot(first + k as i32)] = n;
        }
        let has_zero = min <= 0.0 && max >= 0.0;
        if zeros > if has_zero { ring[0] } else { 0 } {
            return Err(Error::data(format!("{zeros} zeros are more than the bin at zero holds")));
        }
        Ok(Self { min, max, count, zeros, exponent, ring })
    }

    /// Extends the range to `[min, max]` and coarsens the grid to what that needs.
    fn widen(&mut self, min: f32, max: f32) {
        let fresh = self.count == 0;
        let (low, high) = if fresh { (min, max) } else { (self.min.min(min), self.max.max(max)) };
        if fresh {
            self.ring = vec![0; MAX_BINS];
            self.exponent = exponent_for(low, high);
        } else if (low, high) != (self.min, self.max) {
            self.coarsen(exponent_for(low, high));
        }
        (self.min, self.max) = (low, high);
    }

    fn coarsen(&mut self, exponent: i32) {
        if exponent == self.exponent {
            return;
        }
        let (first, counts) = self.bins();
        let shift = (exponent - self.exponent).min(31);
        let mut ring = vec![0; MAX_BINS];
        for (k, n) in counts.enumerate() {
            ring[slot((first + k as i32) >> shift)] += n;
        }
        (self.ring, self.exponent) = (ring, exponent);
    }

    /// By how many bits bin indices of a finer grid are wider than this one's.
    fn shift_from(&self, exponent: i32) -> i32 {
        (self.exponent - exponent).clamp(0, 31)
    }

    /// Counts values that are known to lie within the grid.
    ///
    /// Zeros, of which Relu makes runs, go to [`SPILL`] spare cells in turn: counting a run in one cell would wait for
    /// each store. The caller adds them to their bin.
    fn bin(&mut self, values: &[f32], zeros: u64) {
        let grid = Grid::new(self.exponent);
        let mut cells = std::mem::take(&mut self.ring);
        cells.resize(MAX_BINS + SPILL, 0);
        grid.for_each_block(values, |slots| {
            for &s in slots {
                if let Some(cell) = cells.get_mut(s as usize) {
                    *cell += 1;
                }
            }
        });
        cells.truncate(MAX_BINS);
        cells[slot(0)] += zeros;
        self.ring = cells;
    }
}

/// The arithmetic of one grid: `floor(x / 2^e)` without branches, divisions or calls.
struct Grid {
    width: f32,
    inverse: f32,
}

impl Grid {
    fn new(exponent: i32) -> Self {
        // Both are normal f32 numbers: exponents lie in -126..=116.
        Self { width: power_of_two(exponent) as f32, inverse: power_of_two(-exponent) as f32 }
    }

    /// `floor(x / width)`. The nearest integer may be one too large; comparing it with `x` itself, not with the scaled
    /// `x`, stays right where scaling underflows.
    #[inline(always)]
    fn index(&self, x: f32) -> i32 {
        let shifted = x * self.inverse + MAGIC;
        let nearest = shifted - MAGIC;
        let above = i32::from(nearest * self.width > x);
        (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32).wrapping_sub(above)
    }

    /// The cell that counts the `k`-th value `x`: its bin's in the ring, or for a zero one of the spare cells behind.
    #[inline(always)]
    fn cell(&self, k: usize, x: f32) -> u32 {
        let ring = self.index(x) as u32 & (MAX_BINS as u32 - 1);
        let spare = (MAX_BINS + (k & (SPILL - 1))) as u32;
        if x == 0.0 { spare } else { ring }
    }

    /// Calls `count` with the cells of up to [`BLOCK`] values at a time, so that their computation is a loop of
    /// its own that the compiler can vectorize.
    #[inline(always)]
    fn for_each_block(&self, values: &[f32], mut count: impl FnMut(&[u32])) {
        let mut slots = [0u32; BLOCK];
        let (blocks, rest) = values.as_chunks::<BLOCK>();
        for block in blocks {
            for (k, (s, &x)) in slots.iter_mut().zip(block).enumerate() {
                *s = self.cell(k, x);
            }
            count(&slots);
        }
        for (k, (s, &x)) in slots.iter_mut().zip(rest).enumerate() {
            *s = self.cell(k, x);
        }
        count(&slots[..rest.len()]);
    }
}

/// What the first stage finds in a slice.
struct Scan {
    min: f32,
    max: f32,
    zeros: u64,
}

impl Scan {
    /// `None` for an empty slice.
    fn of(values: &[f32]) -> Result<Option<Self>, NonFinite> {
        if values.is_empty() {
            return Ok(None);
        }
        let mut total = Self { min: f32::INFINITY, max: f32::NEG_INFINITY, zeros: 0 };
        // Chunks keep the lanes' 32-bit counters from overflowing.
        for chunk in values.chunks(CHUNK) {
            total.add(chunk)?;
        }
        // Equal zeros must not leave a sign that depends on their order.
        (total.min, total.max) = (total.min + 0.0, total.max + 0.0);
        Ok(Some(total))
    }

    fn add(&mut self, values: &[f32]) -> Result<(), NonFinite> {
        let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
        let (mut zeros, mut bad) = ([0u32; LANES], [0u32; LANES]);
        let mut take = |k: usize, x: f32| {
            low[k] = if x < low[k] { x } else { low[k] };
            high[k] = if x > high[k] { x } else { high[k] };
            zeros[k] += u32::from(x == 0.0);
            // 0 times a finite number is 0; times NaN or infinity, NaN.
            bad[k] |= u32::from(x * 0.0 != 0.0);
        };
        let (blocks, rest) = values.as_chunks::<LANES>();
        for block in blocks {
            for (k, &x) in block.iter().enumerate() {
                take(k, x);
            }
        }
        for (k, &x) in rest.iter().enumerate() {
            take(k, x);
        }
        if bad.iter().any(|&b| b != 0) {
            let nan = values.iter().any(|x| x.is_nan());
            return Err(if nan { NonFinite::Nan } else { NonFinite::Infinity });
        }
        self.min = low.iter().fold(self.min, |a, &b| a.min(b));
        self.max = high.iter().fold(self.max, |a, &b| a.max(b));
        self.zeros += zeros.iter().map(|&n| u64::from(n)).sum::<u64>();
        Ok(())
    }
}

/// `2^e`, exact for `-1022 <= e <= 1023`.
pub(super) fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

fn slot(index: i32) -> usize {
    index as usize & (MAX_BINS - 1)
}

/// First bin and number of bins of `[min, max]` on the grid of `exponent`, which must be at least [`exponent_for`].
fn span(min: f32, max: f32, exponent: i32) -> (i32, usize) {
    let inverse = power_of_two(-exponent);
    let (first, last) = ((f64::from(min) * inverse).floor(), (f64::from(max) * inverse).floor());
    (first as i32, (last - first) as usize + 1)
}

/// The smallest exponent at which `[min, max]` spans at most [`MAX_BINS`] bins and f32 still resolves their indices.
pub(super) fn exponent_for(min: f32, max: f32) -> i32 {
    let largest = f64::from(min.abs().max(max.abs()));
    let fits = |e: i32| {
        let inverse = power_of_two(-e);
        let bins = (f64::from(max) * inverse).floor() - (f64::from(min) * inverse).floor() + 1.0;
        bins <= MAX_BINS as f64 && largest * inverse < MAX_INDEX
    };
    // At largest / 2^e >= 2^22 indices are too large; the true exponent is at most 10 above.
    let binade = ((largest.to_bits() >> 52) as i32) - 1023;
    let mut exponent = (binade - 22).max(MIN_EXPONENT);
    while !fits(exponent) {
        exponent += 1;
    }
    exponent
}

#[cfg(test)]
#[path = "histogram_tests.rs"]
mod tests;
