//! A sample of what linear layers see, to try quantizations on.

use crate::error::{Error, Result};
use crate::math::Unfold;
use std::collections::BTreeMap;

/// The extremes of each channel of a layer's input over all data, and a fixed number of the columns that the layer
/// multiplies its weight with.
///
/// Columns are chosen by a hash of their position, the smallest first, so the choice does not depend on the order in which
/// batches arrive, nor on how they are shared among threads.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    unfold: Unfold,
    limit: usize,
    /// Least value of each channel.
    pub low: Vec<f32>,
    /// Largest value of each channel.
    pub high: Vec<f32>,
    columns: BTreeMap<(u64, u64), Vec<f32>>,
}

impl Sample {
    /// Nothing seen yet; keeps up to `limit` columns.
    pub fn new(unfold: Unfold, limit: usize) -> Self {
        Self { unfold, limit, low: vec![], high: vec![], columns: BTreeMap::new() }
    }

    /// Adds a layer input of shape `dims`, which is that of batch number `batch`.
    ///
    /// # Errors
    /// A shape that the layer cannot take, or another number of channels than before.
    pub fn add(&mut self, batch: usize, x: &[f32], dims: &[usize]) -> Result<()> {
        if x.is_empty() {
            return Ok(());
        }
        match self.unfold.clone() {
            Unfold::Last => {
                let size = *dims.last().ok_or_else(|| Error::data("the input of a linear layer is a scalar"))?;
                self.widen(x, size, 1)?;
                for (k, column) in x.chunks(size).enumerate() {
                    if let Some(key) = self.wanted(batch, k) {
                        self.keep(key, column.to_vec());
                    }
                }
                Ok(())
            }
            Unfold::Patches(patches) => {
                let misfit = || Error::data(format!("windows of {:?} do not fit an input of {dims:?}", patches.kernel));
                let [samples, channels, spatial @ ..] = dims else { return Err(misfit()) };
                let plane: usize = spatial.iter().product();
                if patches.groups == 0 || channels % patches.groups != 0 {
                    return Err(misfit());
                }
                self.widen(x, *channels, plane)?;
                let per_group = channels / patches.groups;
                for (n, x) in (0..*samples).zip(x.chunks(channels * plane)) {
                    // A sample has at most as many places as elements; most of them are not wanted.
                    let groups = x.chunks(per_group * plane);
                    let unfolded: Option<Vec<_>> = groups.map(|g| patches.columns(g, per_group, spatial)).collect();
                    let unfolded = unfolded.ok_or_else(misfit)?;
                    let places = unfolded.first().map_or(0, |(_, places)| *places);
                    for place in 0..places {
                        let Some(key) = self.wanted(batch, n * places + place) else { continue };
                        let column = |(c, places): &(Vec<f32>, usize)| {
                            c.iter().skip(place).step_by(*places).copied().collect::<Vec<_>>()
                        };
                        self.keep(key, unfolded.iter().flat_map(column).collect());
                    }
                }
                Ok(())
            }
        }
    }

    fn widen(&mut self, x: &[f32], channels: usize, run: usize) -> Result<()> {
        if self.low.is_empty() {
            self.low = vec![f32::INFINITY; channels];
            self.high = vec![f32::NEG_INFINITY; channels];
        }
        if self.low.len() != channels {
            let before = self.low.len();
            return Err(Error::data(format!("a value had {before} channels and now has {channels}")));
        }
        for (k, part) in x.chunks(run).enumerate() {
            let (low, high) = (&mut self.low[k % channels], &mut self.high[k % channels]);
            for &x in part {
                (*low, *high) = (low.min(x), high.max(x));
            }
        }
        Ok(())
    }

    /// The key of a column, if it is among the smallest so far.
    fn wanted(&self, batch: usize, position: usize) -> Option<(u64, u64)> {
        let id = ((batch as u64) << 32) ^ position as u64;
        let key = (mix(id), id);
        let full = self.columns.len() >= self.limit;
        (!full || self.columns.last_key_value().is_some_and(|(last, _)| key < *last)).then_some(key)
    }

    fn keep(&mut self, key: (u64, u64), column: Vec<f32>) {
        self.columns.insert(key, column);
        if self.columns.len() > self.limit {
            self.columns.pop_last();
        }
    }

    /// Adds what another sample of the same value holds.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if other.low.is_empty() {
            return Ok(());
        }
        if self.low.is_empty() {
            *self = other.clone();
            return Ok(());
        }
        if self.low.len() != other.low.len() {
            return Err(Error::data("a value changes its number of channels"));
        }
        self.low.iter_mut().zip(&other.low).for_each(|(a, b)| *a = a.min(*b));
        self.high.iter_mut().zip(&other.high).for_each(|(a, b)| *a = a.max(*b));
        for (key, column) in &other.columns {
            self.keep(*key, column.clone());
        }
        Ok(())
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// The columns, one after the other: `[len, size]`.
    pub fn columns(&self) -> Vec<f32> {
        self.columns.values().flatten().copied().collect()
    }
}

/// Spreads bits (splitmix64's finalizer; Steele et al., Fast Splittable Pseudorandom Number Generators, 2014).
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::{Padding, Patches};

    fn wave(n: usize) -> Vec<f32> {
        (0..n).map(|k| (k as f32 * 0.37).sin()).collect()
    }

    #[test]
    fn the_choice_does_not_depend_on_order_or_shares() {
        let x = wave(40 * 3 * 4);
        let part = |i: usize| &x[i * 12..][..12];
        let mut whole = Sample::new(Unfold::Last, 10);
        (0..40).for_each(|i| whole.add(i, part(i), &[1, 3, 4]).unwrap());
        let (mut a, mut b) = (Sample::new(Unfold::Last, 10), Sample::new(Unfold::Last, 10));
        (0..40).rev().for_each(|i| if i % 3 == 0 { &mut a } else { &mut b }.add(i, part(i), &[1, 3, 4]).unwrap());
        b.merge(&a).unwrap();
        assert_eq!(b, whole);
        assert_eq!((whole.len(), whole.columns().len()), (10, 40));
        let largest = x.iter().skip(1).step_by(4).copied().fold(f32::MIN, f32::max);
        assert_eq!(whole.high[1], largest);
    }

    #[test]
    fn columns_of_convolutions_hold_the_windows_of_all_groups() {
        let padding = Padding::Fixed(vec![(0, 0)]);
        let patches = Patches { groups: 2, kernel: vec![2], strides: vec![1], dilations: vec![1], padding };
        let mut sample = Sample::new(Unfold::Patches(patches), 100);
        sample.add(0, &[1., 2., 3., 10., 20., 30.], &[1, 2, 3]).unwrap();
        let mut columns: Vec<Vec<f32>> = sample.columns().chunks(4).map(<[f32]>::to_vec).collect();
        columns.sort_by(|a, b| a[0].total_cmp(&b[0]));
        assert_eq!(columns, [[1., 2., 10., 20.], [2., 3., 20., 30.]]);
        assert_eq!((sample.low, sample.high), (vec![1., 10.], vec![3., 30.]));
    }

    #[test]
    fn a_changed_number_of_channels_is_refused() {
        let mut sample = Sample::new(Unfold::Last, 1);
        sample.add(0, &[1.0, 2.0], &[1, 2]).unwrap();
        assert!(sample.add(1, &[1.0, 2.0, 3.0], &[1, 3]).is_err());
    }
}
