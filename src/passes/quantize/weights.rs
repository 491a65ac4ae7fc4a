//! Quantization of weights and biases.

use super::options::{Eight, QuantizeOptions};
use super::rounding::{Rounded, unrows};
use super::saturation::saturating_channels;
use crate::error::{Error, Result};
use crate::ir::{DType, Tensor};
use std::collections::BTreeSet;

/// A weight in 8 bits.
pub struct QuantizedWeight {
    /// The elements, in the layout of the original.
    pub data: Tensor,
    /// One scale, or one per output channel.
    pub scale: Vec<f32>,
    /// The zero point of every channel.
    pub zero_point: i32,
    /// Channels that got 7 bits, so that sums of two products fit 16.
    pub reduced: usize,
}

impl QuantizedWeight {
    /// What a code of an output channel stands for.
    pub fn real(&self, channel: usize, code: i64) -> f64 {
        let scale = self.scale[if self.scale.len() == 1 { 0 } else { channel }];
        f64::from(scale) * (code - i64::from(self.zero_point)) as f64
    }
}

/// Largest magnitude of a bias in units of its scale: a quarter of the 32-bit range, which leaves the rest to the sum of
/// products.
const MAX_BIAS: f32 = (1u32 << 29) as f32;

/// Quantizes a weight whose output channels run along `axis`, per channel or per tensor as the options say:
/// `q = clip(round(w / scale) + zero_point)`. A symmetric scale is `max|w| / 127` (for both 8-bit types, so that zero is
/// in the middle and the range is the same on both sides).
///
/// `bias` (one element per channel) and `input_scale` are looked at only to keep `bias / (input_scale * scale)` within
/// 32 bits: where it would overflow, the scale is raised.
///
/// # Errors
/// NaN or infinity in the weight or bias.
pub fn quantize_weight(
    tensor: &Tensor,
    axis: usize,
    bias: Option<&[f32]>,
    input_scale: f32,
    options: &QuantizeOptions,
) -> Result<QuantizedWeight> {
    let data = finite(tensor)?;
    let channels = *tensor.dims.get(axis).ok_or_else(|| Error::internal("weight axis out of range"))?;
    let inner: usize = tensor.dims[axis + 1..].iter().product::<usize>().max(1);
    let channel_of = |k: usize| if options.per_channel { k / inner % channels } else { 0 };
    let mut ranges = vec![(0f32, 0f32); if options.per_channel { channels } else { 1 }];
    for (k, &w) in data.iter().enumerate() {
        let (low, high) = &mut ranges[channel_of(k)];
        *low = low.min(w);
        *high = high.max(w);
    }
    let (qmin, qmax) = options.weights.bounds();
    let (mut scale, zero_point) = if options.symmetric_weights {
        let middle = (qmin + qmax + 1) / 2;
        (ranges.iter().map(|(low, high)| high.max(-low) / 127.0).collect::<Vec<_>>(), middle)
    } else {
        let (low, high) = ranges[0];
        let scale = (high - low) / (qmax - qmin) as f32;
        let zero = if scale > 0.0 { (qmin as f32 - low / scale).round_ties_even() as i32 } else { qmin };
        (vec![scale], zero.clamp(qmin, qmax))
    };
    for s in &mut scale {
        if !s.is_normal() {
            *s = 1.0; // all zero (or denormal): any scale stores it
        }
    }
    if let Some(bias) = bias {
        fit_bias(&mut scale, &ranges, bias, input_scale);
    }
    let codes = |scale: &[f32]| -> Vec<u8> {
        let quantize = |(k, w): (usize, &f32)| {
            let q = (w / scale[channel_of(k)]).round_ties_even() as i32 + zero_point;
            q.clamp(qmin, qmax) as u8 // two's complement for s8
        };
        data.iter().enumerate().map(quantize).collect()
    };
    let mut bytes = codes(&scale);
    let mut reduced = 0;
    if options.saturation_safe && options.weights == Eight::S8 {
        let signed: Vec<i8> = bytes.iter().map(|&q| q as i8).collect();
        let channels = saturating_channels(&signed, &tensor.dims, axis);
        reduced = channels.len();
        let scales: BTreeSet<usize> = channels.into_iter().map(|c| if options.per_channel { c } else { 0 }).collect();
        scales.iter().for_each(|&c| scale[c] *= LARGEST_CODE / LARGEST_SAFE);
        bytes = codes(&scale);
    }
    let data = Tensor::raw(options.weights.dtype(), &tensor.dims, bytes);
    Ok(QuantizedWeight { data, scale, zero_point, reduced })
}

/// Largest code of a symmetric 8-bit weight, and of one of which any two fit 16 bits when multiplied by 255.
const LARGEST_CODE: f32 = 127.0;
const LARGEST_SAFE: f32 = 64.0;

/// What rounding a weight adds to each output channel on average: the rounding errors times the mean of each input
/// channel (Nagel et al., Data-Free Quantization through Weight Equalization and Bias Correction, 2019, section 4.2).
///
/// Output channels run along `axis`, input channels along the other of the first two axes; grouped convolutions have
/// `mean.len() / dims[1]` groups. Padding, which is zero whatever the mean, is neglected. `None` where the shapes do not
/// fit.
pub fn mean_shift(tensor: &Tensor, axis: usize, q: &QuantizedWeight, mean: &[f32]) -> Result<Option<Vec<f32>>> {
    sums_with(tensor, axis, q, mean, |w, rounded| rounded - w)
}

/// What rounding the input adds to each output channel on average: the rounded weight times what rounding adds to the mean
/// of each input channel. Shapes as for [`mean_shift`].
pub fn drift_shift(tensor: &Tensor, axis: usize, q: &QuantizedWeight, drift: &[f32]) -> Result<Option<Vec<f32>>> {
    sums_with(tensor, axis, q, drift, |_, rounded| rounded)
}

/// Sums, for each output channel, of a function of weight and rounded weight times a number per input channel.
fn sums_with(
    tensor: &Tensor,
    axis: usize,
    q: &QuantizedWeight,
    mean: &[f32],
    of: impl Fn(f64, f64) -> f64,
) -> Result<Option<Vec<f32>>> {
    let [rows, columns] = [tensor.dims.first().copied(), tensor.dims.get(1).copied()].map(|d| d.unwrap_or(0));
    let inner = tensor.dims.get(2..).map_or(1, |d| d.iter().product::<usize>());
    let (outputs, inputs) = if axis == 0 { (rows, columns) } else { (columns, rows) };
    if outputs == 0 || inputs == 0 || inner == 0 || !mean.len().is_multiple_of(inputs) {
        return Ok(None);
    }
    let groups = mean.len() / inputs;
    if groups == 0 || !outputs.is_multiple_of(groups) || (axis != 0 && groups != 1) {
        return Ok(None);
    }
    let (data, codes) = (tensor.to_f32()?, q.data.to_i64()?);
    let mut shift = vec![0f64; outputs];
    for (k, (w, code)) in data.iter().zip(codes).enumerate() {
        let (row, column) = (k / inner / columns, k / inner % columns);
        let (output, input) = if axis == 0 { (row, column) } else { (column, row) };
        let error = of(f64::from(*w), q.real(output, code));
        let group = output / (outputs / groups);
        shift[output] += error * f64::from(mean[group * inputs + input]);
    }
    Ok(Some(shift.into_iter().map(|s| s as f32).collect()))
}

/// The smallest scales of weights with which biases fit into 32 bits, per channel.
pub fn least_scales(bias: &[f32], input_scale: f32) -> Vec<f32> {
    bias.iter().map(|b| b.abs() / input_scale / MAX_BIAS).collect()
}

/// A weight whose codes were chosen ahead, in the layout of the original; output channels run along `axis`.
pub fn laid_out(rounded: &Rounded, dims: &[usize], axis: usize, options: &QuantizeOptions) -> QuantizedWeight {
    let bytes: Vec<u8> = unrows(&rounded.codes, dims, axis).iter().map(|&q| q as u8).collect(); // two's complement
    let data = Tensor::raw(options.weights.dtype(), dims, bytes);
    let zero_point = rounded.grid.zero.first().copied().unwrap_or(0);
    QuantizedWeight { data, scale: rounded.grid.scale.clone(), zero_point, reduced: 0 }
}

/// Raises scales until every bias fits. A channel without weights takes the scale that stores its bias best.
fn fit_bias(scale: &mut [f32], ranges: &[(f32, f32)], bias: &[f32], input_scale: f32) {
    let per_tensor = scale.len() == 1;
    for (c, b) in bias.iter().enumerate() {
        let k = if per_tensor { 0 } else { c };
        let Some(s) = scale.get_mut(k) else { continue };
        let least = b.abs() / input_scale / MAX_BIAS;
        let empty = ranges[k] == (0.0, 0.0) && !per_tensor;
        if (empty && least > 0.0) || *s < least {
            *s = least.max(f32::MIN_POSITIVE);
        }
    }
}

/// A bias in 32 bits with scale `input_scale * weight_scale`, zero point 0.
///
/// # Errors
/// NaN or infinity.
pub fn quantize_bias(bias: &[f32], input_scale: f32, weight_scale: &[f32]) -> Result<Vec<i32>> {
    let scale_of = |c: usize| f64::from(input_scale) * f64::from(weight_scale[c % weight_scale.len()]);
    bias.iter()
        .enumerate()
        .map(|(c, &b)| {
            if !b.is_finite() {
                return Err(Error::invalid(format!("its bias holds {b} at position {c}")));
            }
            Ok((f64::from(b) / scale_of(c)).round_ties_even() as i32) // saturates; `fit_bias` keeps it far from that
        })
        .collect()
}

/// The elements of a float tensor, all finite.
///
/// # Errors
/// NaN or infinity, with its position.
pub fn finite(tensor: &Tensor) -> Result<Vec<f32>> {
    let data = tensor.to_f32()?;
    match data.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(Error::invalid(format!("its weight holds {} at position {at}", data[at]))),
        None => Ok(data),
    }
}

/// The transpose of an 8-bit matrix.
pub fn transpose8(t: &Tensor) -> Result<Tensor> {
    let [rows, columns] = t.dims[..] else { return Err(Error::internal("transposing a tensor that is no matrix")) };
    debug_assert!(t.dtype == DType::U8 || t.dtype == DType::I8);
    let bytes = t.bytes()?;
    let out: Vec<u8> =
        (0..columns).flat_map(|c| (0..rows).map(move |r| (r, c))).map(|(r, c)| bytes[r * columns + c]).collect();
    Ok(Tensor::raw(t.dtype, &[columns, rows], out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(per_channel: bool, symmetric_weights: bool, weights: Eight) -> QuantizeOptions {
        QuantizeOptions { per_channel, symmetric_weights, weights, ..QuantizeOptions::default() }
    }

    #[test]
    fn every_element_is_within_half_a_step() {
        let data: Vec<f32> = (0..24).map(|k| ((k * 7) % 24) as f32 * 0.3 - 2.0).collect();
        let tensor = Tensor::from_f32(&[4, 3, 2], &data);
        for o in [options(true, true, Eight::S8), options(false, true, Eight::U8), options(false, false, Eight::U8)] {
            let q = quantize_weight(&tensor, 1, None, 1.0, &o).unwrap();
            for (k, (w, code)) in data.iter().zip(q.data.to_i64().unwrap()).enumerate() {
                let scale = q.scale[if o.per_channel { k / 2 % 3 } else { 0 }];
                let back = scale * (code - i64::from(q.zero_point)) as f32;
                assert!((back - w).abs() <= scale * 0.501, "{w} came back as {back}");
            }
        }
    }

    #[test]
    fn only_channels_that_could_saturate_lose_a_bit() {
        // Outputs along axis 1: the first has neighbours of 127 and 127, the second of 127 and -127.
        let tensor = Tensor::from_f32(&[2, 2], &[1.0, 1.0, 1.0, -1.0]);
        let safe = QuantizeOptions { saturation_safe: true, ..QuantizeOptions::default() };
        let q = quantize_weight(&tensor, 1, None, 1.0, &safe).unwrap();
        assert_eq!(q.data.to_i64().unwrap(), [64, 127, 64, -127]);
        assert_eq!((q.reduced, q.scale[1]), (1, 1.0 / 127.0));
        assert!((q.scale[0] * 64.0 - 1.0).abs() < 1e-6);
        let whole = QuantizeOptions { per_channel: false, ..safe };
        let q = quantize_weight(&tensor, 1, None, 1.0, &whole).unwrap();
        assert_eq!(q.data.to_i64().unwrap(), [64, 64, 64, -64]);
    }

    #[test]
    fn a_bias_that_would_overflow_raises_the_scale() {
        let tensor = Tensor::from_f32(&[2, 1], &[1e-6, 1.0]);
        let bias = [1000.0, 0.5];
        let q = quantize_weight(&tensor, 0, Some(&bias), 1e-3, &options(true, true, Eight::S8)).unwrap();
        let codes = quantize_bias(&bias, 1e-3, &q.scale).unwrap();
        let back = f64::from(codes[0]) * 1e-3 * f64::from(q.scale[0]);
        assert!((back - 1000.0).abs() < 0.01, "{back}");
        assert_eq!(q.scale[1], 1.0 / 127.0, "the other channel keeps its scale");
    }

    #[test]
    fn a_channel_of_zeros_still_has_a_bias() {
        let tensor = Tensor::from_f32(&[2, 2], &[0.0, 0.0, 1.0, -1.0]);
        let bias = [0.25, 0.0];
        let q = quantize_weight(&tensor, 0, Some(&bias), 0.01, &options(true, true, Eight::S8)).unwrap();
        let codes = quantize_bias(&bias, 0.01, &q.scale).unwrap();
        assert!((f64::from(codes[0]) * 0.01 * f64::from(q.scale[0]) - 0.25).abs() < 1e-6);
        assert!(q.data.to_i64().unwrap()[..2] == [0, 0]);
    }

    #[test]
    fn the_mean_shift_is_that_of_the_products() {
        // Two groups of two outputs, three inputs each.
        let data: Vec<f32> = (0..12).map(|k| (k as f32 * 1.37).sin()).collect();
        let tensor = Tensor::from_f32(&[4, 3, 1, 1], &data);
        let q = quantize_weight(&tensor, 0, None, 1.0, &options(true, true, Eight::S8)).unwrap();
        let mean = [0.5f32, 1.0, -2.0, 3.0, 0.0, 7.0];
        let shift = mean_shift(&tensor, 0, &q, &mean).unwrap().unwrap();
        let codes = q.data.to_i64().unwrap();
        for m in 0..4 {
            let products = |w: &dyn Fn(usize) -> f64| -> f64 {
                (0..3).map(|c| w(m * 3 + c) * f64::from(mean[m / 2 * 3 + c])).sum()
            };
            let rounded = products(&|k| f64::from(q.scale[m]) * codes[k] as f64);
            let exact = products(&|k| f64::from(data[k]));
            assert!((f64::from(shift[m]) - (rounded - exact)).abs() < 1e-6);
        }
        assert!(mean_shift(&tensor, 0, &q, &mean[..5]).unwrap().is_none(), "means that do not fit");
    }
}
