//! DeformConv.

use super::super::custom::{Fact, Kernel};
use super::common::{concrete, f64s, fact, int, ints, narrowed};
use super::layout::{optional, required};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `DeformConv` (specification: versions 19 and 22) over images: a convolution whose taps are moved by offsets and weighted by a
/// mask, bilinear between pixels and zero outside. In f64.
#[derive(Debug)]
pub(super) struct DeformConv {
    dilations: Vec<i64>,
    group: usize,
    offset_group: usize,
    pads: Vec<i64>,
    strides: Vec<i64>,
}

/// The shapes of one call.
struct Sizes {
    batch: usize,
    channels: usize,
    height: usize,
    width: usize,
    outputs: usize,
    kernel: [usize; 2],
    out: [usize; 2],
}

impl DeformConv {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let list = |name, default: i64, len: usize| -> TractResult<Vec<i64>> {
            let values = ints(node, name)?.unwrap_or_else(|| vec![default; len]);
            ensure!(
                values.len() == len && values.iter().all(|&v| (default..1 << 30).contains(&v)),
                "{name} {values:?}"
            );
            Ok(values)
        };
        let count = |name| -> TractResult<usize> {
            let n = usize::try_from(int(node, name, 1)?)?;
            ensure!(n > 0, "{name} = 0");
            Ok(n)
        };
        Ok(Self {
            dilations: list("dilations", 1, 2)?,
            group: count("group")?,
            offset_group: count("offset_group")?,
            pads: list("pads", 0, 4)?,
            strides: list("strides", 1, 2)?,
        })
    }

    fn sizes(&self, x: &[usize], w: &[usize], offset: &[usize]) -> TractResult<Sizes> {
        let (&[batch, channels, height, width], &[outputs, inputs, kh, kw]) = (x, w) else {
            bail!("an image of shape {x:?} and a weight of shape {w:?}");
        };
        let fits = inputs.checked_mul(self.group) == Some(channels) && outputs % self.group == 0;
        ensure!(fits && channels % self.offset_group == 0, "{channels} channels, weight {w:?}, {self:?}");
        let out = |k: usize, size: usize, taps: usize| -> TractResult<usize> {
            let reach = (taps as i64 - 1).saturating_mul(self.dilations[k]);
            let room = size as i64 + self.pads[k] + self.pads[k + 2] - reach - 1;
            ensure!(taps > 0 && room >= 0, "a kernel of shape {w:?} over an image of shape {x:?}");
            Ok((room / self.strides[k]) as usize + 1)
        };
        let out = [out(0, height, kh)?, out(1, width, kw)?];
        let want = [batch, 2 * self.offset_group * kh * kw, out[0], out[1]];
        ensure!(*offset == want, "offsets of shape {offset:?}, expected {want:?}");
        Ok(Sizes { batch, channels, height, width, outputs, kernel: [kh, kw], out })
    }
}

/// Bilinear between the pixels of `image`, which are zero outside.
fn sample(image: &[f64], height: usize, width: usize, y: f64, x: f64) -> f64 {
    let (top, left) = (y.floor(), x.floor());
    let (fy, fx) = (y - top, x - left);
    let pixel = |y: f64, x: f64| {
        let inside = y >= 0.0 && x >= 0.0 && y < height as f64 && x < width as f64;
        if inside { image[y as usize * width + x as usize] } else { 0.0 }
    };
    let row = |y: f64| pixel(y, left) * (1.0 - fx) + pixel(y, left + 1.0) * fx;
    row(top) * (1.0 - fy) + row(top + 1.0) * fy
}

impl Kernel for DeformConv {
    fn name(&self) -> &'static str {
        "DeformConv"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let (x, w, offset) = (required(inputs, 0)?, required(inputs, 1)?, required(inputs, 2)?);
        let s = self.sizes(&concrete(&x.shape)?, &concrete(&w.shape)?, &concrete(&offset.shape)?)?;
        Ok(tvec![fact(x.dtype, &[s.batch, s.outputs, s.out[0], s.out[1]])])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let (x, w, offset) = (required(inputs, 0)?, required(inputs, 1)?, required(inputs, 2)?);
        let s = self.sizes(x.shape(), w.shape(), offset.shape())?;
        let dtype = x.datum_type();
        let bias = optional(inputs, 3).map(f64s).transpose()?.unwrap_or_else(|| vec![0.0; s.outputs]);
        ensure!(bias.len() == s.outputs, "{} biases for {} channels", bias.len(), s.outputs);
        let taps = s.kernel[0] * s.kernel[1];
        let places = s.out[0] * s.out[1];
        let mask = optional(inputs, 4).map(f64s).transpose()?;
        let mask = mask.unwrap_or_else(|| vec![1.0; s.batch * self.offset_group * taps * places]);
        ensure!(mask.len() == s.batch * self.offset_group * taps * places, "a mask of {} elements", mask.len());
        let (x, w, offset) = (f64s(x)?, f64s(w)?, f64s(offset)?);
        let pixels = s.height * s.width;
        let (per_group, outs) = (s.channels / self.group, s.outputs / self.group);
        let mut y = vec![0f64; s.batch * s.outputs * places];
        for n in 0..s.batch {
            for o in 0..s.outputs {
                y[(n * s.outputs + o) * places..][..places].fill(bias[o]);
            }
            for c in 0..s.channels {
                let image = &x[(n * s.channels + c) * pixels..][..pixels];
                let og = n * self.offset_group + c / (s.channels / self.offset_group);
                for tap in 0..taps {
                    let (ky, kx) = ((tap / s.kernel[1]) as i64, (tap % s.kernel[1]) as i64);
                    for place in 0..places {
                        let (i, j) = ((place / s.out[1]) as i64, (place % s.out[1]) as i64);
                        let at = (i * self.strides[0] - self.pads[0] + ky * self.dilations[0]) as f64;
                        let moved = at + offset[((og * taps + tap) * 2) * places + place];
                        let at = (j * self.strides[1] - self.pads[1] + kx * self.dilations[1]) as f64;
                        let across = at + offset[((og * taps + tap) * 2 + 1) * places + place];
                        let value = sample(image, s.height, s.width, moved, across);
                        let value = value * mask[(og * taps + tap) * places + place];
                        let g = c / per_group;
                        for o in g * outs..(g + 1) * outs {
                            let weight = w[(o * per_group + c % per_group) * taps + tap];
                            y[(n * s.outputs + o) * places + place] += weight * value;
                        }
                    }
                }
            }
        }
        Ok(tvec![narrowed(dtype, &[s.batch, s.outputs, s.out[0], s.out[1]], &y)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_move_the_taps_even_out_of_the_image() {
        let op = DeformConv { dilations: vec![1; 2], group: 1, offset_group: 1, pads: vec![0; 4], strides: vec![1; 2] };
        let x = Tensor::from_shape(&[1, 1, 1, 2], &[2f32, 4.0]).unwrap();
        let w = Tensor::from_shape(&[1, 1, 1, 1], &[10f32]).unwrap();
        let offset = Tensor::from_shape(&[1, 2, 1, 2], &[0f32, -0.5, 0.5, -3.0]).unwrap();
        let y = op.eval(&[Some(&x), Some(&w), Some(&offset)]).unwrap();
        assert_eq!(y[0], Tensor::from_shape(&[1, 1, 1, 2], &[30f32, 0.0]).unwrap());
        let wide = Tensor::from_shape(&[1, 1, 2, 2], &[1f32; 4]).unwrap();
        assert!(op.eval(&[Some(&x), Some(&wide), Some(&offset)]).is_err());
    }
}
