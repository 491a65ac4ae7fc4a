//! ConvTranspose.

use super::super::custom::{Fact, Kernel};
use super::common::{concrete, f32s, fact, for_each_index, int, ints, narrowed, strides, text, volume};
use super::layout::{optional, required};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `ConvTranspose` (specification: versions 1 to 22) whose padding follows from the shapes. tract's arithmetic on those
/// overflows.
#[derive(Debug)]
pub(super) struct ConvTranspose {
    upper: bool,
    same: bool,
    output_shape: Option<Vec<i64>>,
    strides: Option<Vec<i64>>,
    dilations: Option<Vec<i64>>,
    output_padding: Option<Vec<i64>>,
    group: usize,
}

/// One spatial axis.
struct Axis {
    kernel: usize,
    stride: usize,
    dilation: usize,
    before: usize,
    out: usize,
}

impl ConvTranspose {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let auto = text(node, "auto_pad", "NOTSET")?;
        let output_shape = ints(node, "output_shape")?;
        ensure!(auto != "VALID" || output_shape.is_none(), "output_shape with auto_pad VALID");
        ensure!(ints(node, "pads")?.is_none_or(|p| p.iter().all(|&p| p == 0)), "pads beside auto_pad or output_shape");
        let same = auto.starts_with("SAME_");
        // Nobody agrees on whether that is padded too.
        let padded = ints(node, "output_padding")?.is_some_and(|p| p.iter().any(|&p| p != 0));
        ensure!(!(same && padded), "output_padding with auto_pad");
        Ok(Self {
            upper: auto == "SAME_UPPER",
            same,
            output_shape,
            strides: ints(node, "strides")?,
            dilations: ints(node, "dilations")?,
            output_padding: ints(node, "output_padding")?,
            group: usize::try_from(int(node, "group", 1)?)?,
        })
    }

    fn axes(&self, x: &[usize], w: &[usize]) -> TractResult<(TVec<usize>, Vec<Axis>)> {
        let fits =
            x.len() == w.len() && x.len() > 2 && x[1] == w[0] && self.group > 0 && x[1].is_multiple_of(self.group);
        ensure!(fits, "shapes {x:?} and {w:?} in {} groups", self.group);
        let rank = x.len() - 2;
        let list = |given: &Option<Vec<i64>>, default: i64| -> TractResult<Vec<i64>> {
            let values = given.clone().unwrap_or_else(|| vec![default; rank]);
            ensure!(values.len() == rank && values.iter().all(|&v| (default..1 << 24).contains(&v)), "{values:?}");
            Ok(values)
        };
        let (steps, gaps) = (list(&self.strides, 1)?, list(&self.dilations, 1)?);
        let extra = list(&self.output_padding, 0)?;
        // Older models give the whole shape.
        let wanted = self.output_shape.as_ref().map(|s| s.get(s.len().saturating_sub(rank)..).unwrap_or(&[]));
        ensure!(wanted.is_none_or(|s| s.len() == rank), "output_shape {:?}", self.output_shape);
        let axis = |k: usize| {
            ensure!(w[k + 2] > 0 && x[k + 2] > 0, "shapes {x:?} and {w:?}");
            let whole = steps[k] * (x[k + 2] as i64 - 1) + extra[k] + (w[k + 2] as i64 - 1) * gaps[k] + 1;
            let out = match wanted {
                Some(shape) => shape[k],
                None if self.same => steps[k] * x[k + 2] as i64,
                None => whole,
            };
            // The specification says `stride * input`, ONNX Runtime no more than there is.
            ensure!(wanted.is_some() || out <= whole, "auto_pad to {out} where {whole} elements are");
            // A larger output has nothing but the bias at its end.
            ensure!((1..1 << 40).contains(&out), "an output of {out}");
            let pads = (whole - out).max(0);
            let before = if self.upper { pads / 2 } else { pads - pads / 2 } as usize;
            let (stride, dilation) = (steps[k] as usize, gaps[k] as usize);
            Ok(Axis { kernel: w[k + 2], stride, dilation, before, out: out as usize })
        };
        let axes: Vec<Axis> = (0..rank).map(axis).collect::<TractResult<_>>()?;
        let mut shape: TVec<usize> = tvec![x[0], w[1] * self.group];
        shape.extend(axes.iter().map(|a| a.out));
        volume(&shape)?;
        Ok((shape, axes))
    }
}

impl Kernel for ConvTranspose {
    fn name(&self) -> &'static str {
        "ConvTranspose"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let (x, w) = (required(inputs, 0)?, required(inputs, 1)?);
        Ok(tvec![fact(x.dtype, &self.axes(&concrete(&x.shape)?, &concrete(&w.shape)?)?.0)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let (x, w) = (required(inputs, 0)?, required(inputs, 1)?);
        let (shape, axes) = self.axes(x.shape(), w.shape())?;
        let bias = optional(inputs, 2).map(f32s).transpose()?.unwrap_or_else(|| vec![0.0; shape[1]]);
        ensure!(bias.len() == shape[1], "{} biases for {} channels", bias.len(), shape[1]);
        let (ins, outs) = (x.shape()[1] / self.group, w.shape()[1]);
        let steps = strides(&shape);
        let pixels: usize = shape[2..].iter().product();
        let (from, weights) = (f32s(x)?, f32s(w)?);
        let mut y: Vec<f32> = (0..shape.iter().product()).map(|k| bias[k / pixels % shape[1]]).collect();
        let taps: TVec<usize> = axes.iter().map(|a| a.kernel).collect();
        let per_kernel: usize = taps.iter().product();
        for_each_index(x.shape(), |flat, index| {
            let (value, c) = (from[flat], index[1]);
            for_each_index(&taps, |tap, offset| {
                let mut place = index[0] * steps[0];
                for (k, a) in axes.iter().enumerate() {
                    let at = index[k + 2] * a.stride + offset[k] * a.dilation;
                    match at.checked_sub(a.before) {
                        Some(at) if at < a.out => place += at * steps[k + 2],
                        _ => return Ok(()),
                    }
                }
                for o in 0..outs {
                    let channel = c / ins * outs + o;
                    y[place + channel * steps[1]] += value * weights[(c * outs + o) * per_kernel + tap];
                }
                Ok(())
            })
        })?;
        Ok(tvec![narrowed(x.datum_type(), &shape, &y)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_follows_from_the_output_shape() {
        let x = Tensor::from_shape(&[1, 1, 2], &[1f32, 2.0]).unwrap();
        let w = Tensor::from_shape(&[1, 1, 3], &[1f32, 10.0, 100.0]).unwrap();
        let run = |upper, size: i64| {
            let op = ConvTranspose {
                upper,
                same: false,
                output_shape: Some(vec![size]),
                strides: None,
                dilations: None,
                output_padding: None,
                group: 1,
            };
            op.eval(&[Some(&x), Some(&w)]).map(|y| f32s(&y[0]).unwrap())
        };
        assert_eq!(run(false, 4).unwrap(), [1.0, 12.0, 120.0, 200.0]);
        assert_eq!(run(false, 3).unwrap(), [12.0, 120.0, 200.0]);
        assert_eq!(run(true, 3).unwrap(), [1.0, 12.0, 120.0]);
        assert_eq!(run(true, 5).unwrap(), [1.0, 12.0, 120.0, 200.0, 0.0]);
        assert!(run(true, 1 << 39).is_err() && run(true, 0).is_err() && run(true, i64::MIN).is_err());
    }
}
