//! Scale and zero point of linear quantization, `q = clamp(round(x / scale) + zero_point, qmin, qmax)`
//! (ONNX specification: QuantizeLinear).

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// The integers that a value is quantized to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RangeSpec {
    /// Smallest integer.
    pub qmin: i32,
    /// Largest integer.
    pub qmax: i32,
    /// Whether the range is `-t..=t` and the zero point is fixed in the middle (0 where signed).
    pub symmetric: bool,
}

impl RangeSpec {
    /// All integers of a type with 2 to 16 `bits`; symmetric signed ones without the most negative, which has no
    /// counterpart.
    ///
    /// # Errors
    /// Any other number of bits.
    pub fn new(bits: u32, signed: bool, symmetric: bool) -> Result<Self> {
        if !(2..=16).contains(&bits) {
            return Err(Error::usage(format!("{bits} bits: quantization takes 2 to 16")));
        }
        let half = 1i32 << (bits - 1);
        let (qmin, qmax) = match (signed, symmetric) {
            (true, true) => (1 - half, half - 1),
            (true, false) => (-half, half - 1),
            (false, _) => (0, 2 * half - 1),
        };
        Ok(Self { qmin, qmax, symmetric })
    }

    /// Steps between the smallest and the largest integer.
    pub(super) fn steps(&self) -> i32 {
        self.qmax.saturating_sub(self.qmin).max(1)
    }

    /// The zero point of a symmetric range.
    fn middle(&self) -> i32 {
        (self.qmin + self.qmax + 1).div_euclid(2)
    }
}

/// How real numbers map to integers.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct QuantParams {
    /// Real distance of neighbouring integers; positive, finite and never denormal.
    pub scale: f32,
    /// The integer that means exactly zero.
    pub zero_point: i32,
}

impl QuantParams {
    /// The parameters that cover `[low, high]`, extended where needed to contain zero. An all-zero range gets scale 1.
    ///
    /// Rounding the zero point to an integer shifts the covered range by up to half a step: see [`Self::covered`].
    pub fn from_range(low: f32, high: f32, spec: &RangeSpec) -> Self {
        let (low, high) = (f64::from(low.min(0.0)), f64::from(high.max(0.0)));
        if spec.symmetric {
            let middle = spec.middle();
            let steps = (spec.qmax - middle).min(middle - spec.qmin).max(1);
            return Self { scale: usable_scale(high.max(-low) / f64::from(steps)), zero_point: middle };
        }
        let exact = (high - low) / f64::from(spec.steps());
        let scale = usable_scale(exact);
        if exact == 0.0 {
            return Self { scale, zero_point: 0.clamp(spec.qmin, spec.qmax) };
        }
        // From the exact scale: the rounded one would break ties at random.
        let zero_point = (f64::from(spec.qmin) - low / exact).round_ties_even();
        Self { scale, zero_point: (zero_point as i32).clamp(spec.qmin, spec.qmax) }
    }

    /// What a value becomes: quantized and dequantized.
    pub fn rounded(&self, x: f32, spec: &RangeSpec) -> f32 {
        let (low, high) = ((spec.qmin - self.zero_point) as f32, (spec.qmax - self.zero_point) as f32);
        (x / self.scale).round_ties_even().clamp(low, high) * self.scale
    }

    /// The reals that `qmin` and `qmax` mean: what is outside is clipped.
    pub fn covered(&self, spec: &RangeSpec) -> (f64, f64) {
        let real = |q: i32| f64::from(q - self.zero_point) * f64::from(self.scale);
        (real(spec.qmin), real(spec.qmax))
    }
}

/// The scale as f32; 1 for 0, and the nearest normal number where the exact one is too small or too large.
fn usable_scale(exact: f64) -> f32 {
    if exact == 0.0 {
        return 1.0;
    }
    (exact as f32).clamp(f32::MIN_POSITIVE, f32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(low: f32, high: f32, bits: u32, signed: bool, symmetric: bool) -> (f32, i32) {
        let p = QuantParams::from_range(low, high, &RangeSpec::new(bits, signed, symmetric).unwrap());
        (p.scale, p.zero_point)
    }

    #[test]
    fn known_values() {
        assert_eq!(params(0.0, 255.0, 8, false, false), (1.0, 0));
        assert_eq!(params(-128.0, 127.0, 8, true, false), (1.0, 0));
        assert_eq!(params(-1.0, 1.0, 8, false, false), (2.0 / 255.0, 128));
        assert_eq!(params(-1.0, 3.0, 8, true, false), (4.0 / 255.0, -64));
        assert_eq!(params(-3.0, 1.0, 8, true, true), (3.0 / 127.0, 0));
        assert_eq!(params(-3.0, 1.0, 8, false, true), (3.0 / 127.0, 128));
        assert_eq!(params(-7.0, 3.5, 4, true, true), (1.0, 0));
        assert_eq!(params(0.0, 65535.0, 16, false, false), (1.0, 0));
    }

    #[test]
    fn zero_is_always_inside() {
        assert_eq!(params(2.0, 5.0, 8, false, false), (5.0 / 255.0, 0));
        assert_eq!(params(-5.0, -2.0, 8, false, false), (5.0 / 255.0, 255));
        assert_eq!(params(-5.0, -2.0, 8, true, false), (5.0 / 255.0, 127));
    }

    #[test]
    fn scales_are_never_zero_denormal_or_infinite() {
        assert_eq!(params(0.0, 0.0, 8, true, true), (1.0, 0));
        assert_eq!(params(0.0, 1e-44, 8, false, false).0, f32::MIN_POSITIVE);
        assert_eq!(params(-1e-44, 1e-44, 8, true, true).0, f32::MIN_POSITIVE);
        let (scale, zero_point) = params(f32::MIN, f32::MAX, 2, false, false);
        assert!(scale.is_finite() && (0..=3).contains(&zero_point));
    }

    #[test]
    fn covered_range_is_within_half_a_step() {
        let spec = RangeSpec::new(8, false, false).unwrap();
        let p = QuantParams::from_range(-0.37, 1.21, &spec);
        let (low, high) = p.covered(&spec);
        let half = f64::from(p.scale) * 0.5001;
        assert!((low + 0.37).abs() < half && (high - 1.21).abs() < half, "{low} {high}");
    }

    #[test]
    fn impossible_widths_are_refused() {
        assert!(RangeSpec::new(1, true, true).is_err());
        assert!(RangeSpec::new(17, true, true).is_err());
    }
}
