//! CausalConvWithState.

use super::super::custom::{Fact, Kernel};
use super::common::{concrete, f32s, fact, narrowed, text};
use super::layout::{optional, required};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `CausalConvWithState` (specification: version 27): a depthwise convolution over the present and the past, in f32.
#[derive(Debug)]
pub(super) struct CausalConv {
    silu: bool,
}

impl CausalConv {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        match &*text(node, "activation", "none")? {
            "none" => Ok(Self { silu: false }),
            "silu" | "swish" => Ok(Self { silu: true }),
            other => bail!("activation \"{other}\""),
        }
    }
}

/// Batch, channels, length, and taps of the kernel.
fn sizes(x: &[usize], w: &[usize]) -> TractResult<[usize; 4]> {
    let (&[batch, channels, length], &[outputs, 1, taps]) = (x, w) else { bail!("shapes {x:?} and {w:?}") };
    ensure!(outputs == channels && taps > 0, "shapes {x:?} and {w:?}");
    Ok([batch, channels, length, taps])
}

impl Kernel for CausalConv {
    fn name(&self) -> &'static str {
        "CausalConvWithState"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let (x, w) = (required(inputs, 0)?, required(inputs, 1)?);
        let [batch, channels, _, taps] = sizes(&concrete(&x.shape)?, &concrete(&w.shape)?)?;
        Ok(tvec![Fact::new(x.dtype, x.shape), fact(x.dtype, &[batch, channels, taps - 1])])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let (x, w) = (required(inputs, 0)?, required(inputs, 1)?);
        let [batch, channels, length, taps] = sizes(x.shape(), w.shape())?;
        let (dtype, shape) = (x.datum_type(), x.shape());
        let state = [batch, channels, taps - 1];
        let past = match optional(inputs, 3) {
            Some(past) => {
                ensure!(past.shape() == state, "a state of shape {:?}", past.shape());
                f32s(past)?
            }
            None => vec![0.0; state.iter().product()],
        };
        let bias = optional(inputs, 2).map(f32s).transpose()?.unwrap_or_else(|| vec![0.0; channels]);
        ensure!(bias.len() == channels, "{} biases for {channels} channels", bias.len());
        let (x, w) = (f32s(x)?, f32s(w)?);
        let (mut y, mut present) = (vec![], vec![]);
        for line in 0..batch * channels {
            let c = line % channels;
            let mut all = past[line * (taps - 1)..][..taps - 1].to_vec();
            all.extend_from_slice(&x[line * length..][..length]);
            for window in all.windows(taps) {
                let sum: f32 = window.iter().zip(&w[c * taps..]).map(|(x, w)| x * w).sum();
                let sum = sum + bias[c];
                y.push(if self.silu { sum / (1.0 + (-sum).exp()) } else { sum });
            }
            present.extend_from_slice(&all[length..]);
        }
        Ok(tvec![narrowed(dtype, shape, &y)?, narrowed(dtype, &state, &present)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_carries_on() {
        let conv = CausalConv { silu: false };
        let w = Tensor::from_shape(&[1, 1, 3], &[1f32, 10.0, 100.0]).unwrap();
        let x = Tensor::from_shape(&[1, 1, 1], &[2f32]).unwrap();
        let past = Tensor::from_shape(&[1, 1, 2], &[3f32, 4.0]).unwrap();
        let out = conv.eval(&[Some(&x), Some(&w), None, Some(&past)]).unwrap();
        assert_eq!(out[0], Tensor::from_shape(&[1, 1, 1], &[243f32]).unwrap());
        assert_eq!(out[1], Tensor::from_shape(&[1, 1, 2], &[4f32, 2.0]).unwrap());
        let empty = Tensor::zero::<f32>(&[1, 1, 0]).unwrap();
        let out = conv.eval(&[Some(&empty), Some(&w), None, Some(&past)]).unwrap();
        assert_eq!((out[0].shape(), &out[1]), (&[1usize, 1, 0][..], &past));
    }
}
