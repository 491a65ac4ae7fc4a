//! Statistics of the channels of a value.

/// What a value's channels are like. All have an element per channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelStatistics {
    /// Smallest element seen; 0 where none is negative.
    pub low: Vec<f32>,
    /// Largest element seen; 0 where none is positive.
    pub high: Vec<f32>,
    /// Mean square of the elements.
    pub energy: Vec<f64>,
    /// Squared error of the model's outputs, relative to their squares, for an error of variance 1 in every element of the
    /// channel.
    pub gain: Vec<f64>,
}

impl ChannelStatistics {
    /// Takes in those of more samples; means become sums until [`ChannelStatistics::divide`].
    pub fn merge(&mut self, more: &Self) {
        self.low.iter_mut().zip(&more.low).for_each(|(a, b)| *a = a.min(*b));
        self.high.iter_mut().zip(&more.high).for_each(|(a, b)| *a = a.max(*b));
        self.energy.iter_mut().zip(&more.energy).for_each(|(a, b)| *a += b);
        self.gain.iter_mut().zip(&more.gain).for_each(|(a, b)| *a += b);
    }

    /// Makes means of sums.
    pub fn divide(&mut self, by: f64) {
        self.energy.iter_mut().chain(&mut self.gain).for_each(|x| *x /= by);
    }

    /// Whether there is neither NaN nor infinity.
    pub fn is_finite(&self) -> bool {
        let bounds = self.low.iter().chain(&self.high).all(|x| x.is_finite());
        bounds && self.energy.iter().chain(&self.gain).all(|x| x.is_finite())
    }
}
