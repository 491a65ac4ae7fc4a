//! Augmentation of image feeds: mirrored and shifted copies.

use super::random::Random;
use crate::error::Result;
use crate::io::Feed;
use crate::ir::{DType, Tensor};

/// What may happen to images `[n, channels, height, width]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Augment {
    /// Mirror half of them left to right.
    pub flip: bool,
    /// Shift by up to this many pixels along both axes; what comes in repeats the edge.
    pub shift: usize,
}

impl Augment {
    /// Whether nothing happens.
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// Whether this input is one of images.
    pub fn takes(t: &Tensor) -> bool {
        t.dtype == DType::F32 && t.rank() == 4
    }

    /// The feed with every image changed at random.
    pub(super) fn apply(self, feed: &Feed, random: &mut Random) -> Result<Feed> {
        if self.is_nothing() {
            return Ok(feed.clone());
        }
        let change = |(name, t): (&String, &Tensor)| {
            Ok((name.clone(), if Self::takes(t) { self.images(t, random)? } else { t.clone() }))
        };
        feed.iter().map(change).collect()
    }

    fn images(self, t: &Tensor, random: &mut Random) -> Result<Tensor> {
        let x = t.to_f32()?;
        let [_, c, h, w] = [0, 1, 2, 3].map(|k| t.dims[k]);
        let mut y = Vec::with_capacity(x.len());
        let span = 2 * self.shift + 1;
        for image in x.chunks(c * h * w) {
            let flip = self.flip && random.next() & 1 == 1;
            let (down, right) = (random.below(span), random.below(span));
            let at = |i: usize, by: usize, n: usize| (i + by).saturating_sub(self.shift).min(n - 1);
            for plane in image.chunks(h * w) {
                for i in 0..h {
                    let row = &plane[at(i, down, h) * w..][..w];
                    y.extend((0..w).map(|j| row[at(if flip { w - 1 - j } else { j }, right, w)]));
                }
            }
        }
        Ok(Tensor::from_f32(&t.dims, &y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_mirrored_and_shifted_and_nothing_else() {
        let x: Vec<f32> = (0..2 * 3 * 3).map(|i| i as f32).collect();
        let feed = Feed::from([("x".to_string(), Tensor::from_f32(&[2, 1, 3, 3], &x))]);
        assert_eq!(Augment::default().apply(&feed, &mut Random::new(1)).unwrap(), feed);
        let flipped = Augment { flip: true, shift: 0 };
        let mut seen = [false; 2];
        for seed in 0..16 {
            let y = flipped.apply(&feed, &mut Random::new(seed)).unwrap()["x"].to_f32().unwrap();
            seen[usize::from(y[0] == 2.0)] = true;
            assert!(y[..3] == [0.0, 1.0, 2.0] || y[..3] == [2.0, 1.0, 0.0]);
        }
        assert_eq!(seen, [true; 2]);
        let shifted = Augment { flip: false, shift: 1 };
        let y = shifted.apply(&feed, &mut Random::new(3)).unwrap()["x"].to_f32().unwrap();
        assert!(y.iter().all(|v| x.contains(v)) && y.len() == x.len());
        assert_eq!(shifted.apply(&feed, &mut Random::new(3)).unwrap()["x"].to_f32().unwrap(), y);
    }
}
