//! Where the elements of a resized axis come from.

use tract_onnx::tract_hir::internal::*;

/// For each element of the new axis, elements of the old one and their weights.
pub(super) type Taps = Vec<Vec<(usize, f32)>>;

/// Which neighbour is the nearest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Nearest {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

impl Nearest {
    /// The index below `len` for a coordinate.
    pub(super) fn of(self, at: f32, len: usize) -> usize {
        let whole = match self {
            Self::PreferFloor if at == at.trunc() + 0.5 => at.floor(),
            Self::PreferFloor | Self::PreferCeil => at.round(),
            Self::Floor => at.floor(),
            Self::Ceil => at.ceil(),
        };
        (whole.max(0.0) as usize).min(len.saturating_sub(1))
    }
}

/// What lies between the elements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mode {
    Nearest(Nearest),
    Linear,
    Cubic { a: f32, exclude_outside: bool },
}

/// How a coordinate of the new axis becomes one of the old.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    TfCropAndResize,
}

impl Coordinates {
    pub(super) fn parse(name: &str) -> TractResult<Self> {
        Ok(match name {
            "half_pixel" => Self::HalfPixel,
            "half_pixel_symmetric" => Self::HalfPixelSymmetric,
            "pytorch_half_pixel" => Self::PytorchHalfPixel,
            "align_corners" => Self::AlignCorners,
            "asymmetric" => Self::Asymmetric,
            "tf_crop_and_resize" => Self::TfCropAndResize,
            other => bail!("coordinate_transformation_mode \"{other}\""),
        })
    }

    /// Whether coordinates depend on the new length, not only on the scale.
    pub(super) fn needs_length(self) -> bool {
        !matches!(self, Self::HalfPixel | Self::Asymmetric | Self::HalfPixelSymmetric)
    }
}

/// One axis: its old and new lengths, their ratio, and the part of it that is taken.
#[derive(Debug)]
pub(super) struct Axis {
    pub(super) len: usize,
    pub(super) out: usize,
    pub(super) scale: f32,
    pub(super) roi: [f32; 2],
}

impl Axis {
    /// The old coordinate of new element `i`.
    pub(super) fn at(&self, coordinates: Coordinates, i: usize) -> f32 {
        let (x, scale) = (i as f32, self.scale);
        let (len, out) = (self.len as f32, self.out as f32);
        let half_pixel = (x + 0.5) / scale - 0.5;
        match coordinates {
            Coordinates::HalfPixel => half_pixel,
            Coordinates::HalfPixelSymmetric => {
                // In ONNX Runtime's order: sums round differently in another.
                let offset = len / 2.0 * (1.0 - out / (scale * len));
                offset + (x + 0.5) / scale - 0.5
            }
            Coordinates::PytorchHalfPixel => {
                if self.out > 1 {
                    half_pixel
                } else {
                    0.0
                }
            }
            Coordinates::AlignCorners => {
                if self.out > 1 {
                    x * (len - 1.0) / (out - 1.0)
                } else {
                    0.0
                }
            }
            Coordinates::Asymmetric => x / scale,
            Coordinates::TfCropAndResize => {
                let [start, end] = self.roi;
                match self.out {
                    0 | 1 => 0.5 * (start + end) * (len - 1.0),
                    _ => start * (len - 1.0) + x * (end - start) * (len - 1.0) / (out - 1.0),
                }
            }
        }
    }

    pub(super) fn taps(&self, mode: Mode, coordinates: Coordinates) -> Taps {
        let last = self.len.saturating_sub(1);
        let tap = |i: usize| {
            let at = self.at(coordinates, i);
            match mode {
                Mode::Nearest(nearest) => vec![(nearest.of(at, self.len), 1.0)],
                Mode::Linear => {
                    let at = at.max(0.0).min(last as f32);
                    let below = at.floor() as usize;
                    let part = at - below as f32;
                    vec![(below, 1.0 - part), ((below + 1).min(last), part)]
                }
                Mode::Cubic { a, exclude_outside } => cubic(at, a, exclude_outside, self.len),
            }
        };
        (0..self.out).map(tap).collect()
    }
}

/// Four neighbours (R. Keys, "Cubic convolution interpolation for digital image processing", 1981); those outside are the edge,
/// or nothing.
fn cubic(at: f32, a: f32, exclude_outside: bool, len: usize) -> Vec<(usize, f32)> {
    let below = at.floor();
    let s = at - below;
    let near = |s: f32| ((a + 2.0) * s - (a + 3.0)) * s * s + 1.0;
    let far = |s: f32| ((a * s - 5.0 * a) * s + 8.0 * a) * s - 4.0 * a;
    let weights = [far(s + 1.0), near(s), near(1.0 - s), far(2.0 - s)];
    let mut taps = vec![];
    for (k, weight) in weights.into_iter().enumerate() {
        let place = below + k as f32 - 1.0;
        let outside = place < 0.0 || place >= len as f32;
        if !(outside && exclude_outside) {
            taps.push(((place.max(0.0) as usize).min(len.saturating_sub(1)), weight));
        }
    }
    if exclude_outside {
        let sum: f32 = taps.iter().map(|t| t.1).sum();
        taps.iter_mut().for_each(|t| t.1 /= sum);
    }
    taps
}
