//! Means of channels, streamed.

use crate::error::{Error, Result};

/// Fractional bits of the fixed-point sums: integers add up to the same in any order, floats do not.
const FRACTION: i32 = 40;

/// Running mean of each channel of a value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelMeans {
    sums: Vec<i128>,
    /// Elements per channel.
    count: u64,
}

impl ChannelMeans {
    /// Adds a tensor of shape `dims` whose channels run along `axis` (from the end where negative).
    ///
    /// # Errors
    /// An axis that the shape does not have, or another number of channels than before.
    pub fn update(&mut self, data: &[f32], dims: &[usize], axis: i64) -> Result<()> {
        let axis = if axis < 0 { axis + dims.len() as i64 } else { axis };
        let axis = usize::try_from(axis).ok().filter(|&a| a < dims.len());
        let axis = axis.ok_or_else(|| Error::internal(format!("no channel axis in shape {dims:?}")))?;
        let (channels, inner) = (dims[axis], dims[axis + 1..].iter().product::<usize>());
        if data.is_empty() {
            return Ok(());
        }
        if self.sums.is_empty() {
            self.sums = vec![0; channels];
        }
        if self.sums.len() != channels {
            let before = self.sums.len();
            return Err(Error::data(format!("a value had {before} channels and now has {channels}")));
        }
        let mut batch = vec![0f64; channels];
        for (k, run) in data.chunks_exact(inner).enumerate() {
            batch[k % channels] += sum(run);
        }
        for (sum, x) in self.sums.iter_mut().zip(batch) {
            *sum += (x * f64::from(FRACTION).exp2()).round() as i128;
        }
        self.count += (data.len() / channels) as u64;
        Ok(())
    }

    /// Adds what another one has seen.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.sums.is_empty() {
            *self = other.clone();
            return Ok(());
        }
        if !other.sums.is_empty() && other.sums.len() != self.sums.len() {
            return Err(Error::data("a value changes its number of channels"));
        }
        for (sum, x) in self.sums.iter_mut().zip(&other.sums) {
            *sum += x;
        }
        self.count += other.count;
        Ok(())
    }

    /// The means; `None` before the first element.
    pub fn finish(&self) -> Option<Vec<f32>> {
        let n = self.count as f64 * f64::from(FRACTION).exp2();
        (self.count > 0).then(|| self.sums.iter().map(|&s| (s as f64 / n) as f32).collect())
    }
}

/// Sum in f64, in lanes that do not wait for each other.
fn sum(run: &[f32]) -> f64 {
    let (blocks, rest) = run.as_chunks::<8>();
    let mut lanes = [0f64; 8];
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane += f64::from(x);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(x)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_do_not_depend_on_the_order_of_batches() {
        let data: Vec<f32> = (0..240).map(|k| ((k * 37) % 101) as f32 * 0.013 - 0.5).collect();
        let parts: Vec<ChannelMeans> = data
            .chunks(60)
            .map(|part| {
                let mut m = ChannelMeans::default();
                m.update(part, &[5, 3, 4], 1).unwrap();
                m
            })
            .collect();
        let total = |order: [usize; 4]| {
            let mut all = ChannelMeans::default();
            for k in order {
                all.merge(&parts[k]).unwrap();
            }
            all.finish().unwrap()
        };
        assert_eq!(total([0, 1, 2, 3]), total([3, 1, 0, 2]));
        let exact: f64 = data.chunks(4).step_by(3).flatten().map(|&x| f64::from(x)).sum::<f64>() / 80.0;
        assert!((f64::from(total([0, 1, 2, 3])[0]) - exact).abs() < 1e-7);
    }

    #[test]
    fn a_changed_number_of_channels_is_refused() {
        let mut m = ChannelMeans::default();
        m.update(&[1.0, 2.0], &[1, 2], -1).unwrap();
        assert!(m.update(&[1.0, 2.0, 3.0], &[1, 3], -1).is_err());
    }
}
