//! Conv.

use crate::error::Result;
use crate::ir::Type;
use crate::math::Unfold;
use crate::ops::rules::{count, is_f32, output};
use crate::ops::spec::{ComputeRole, InferContext, Inferred, OpSpec, Purpose, QuantRole, Schema, WeightRole, op};
use crate::ops::window::{conv_patches, conv_shape};

/// Convolution.
pub struct Conv;

impl OpSpec for Conv {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Conv", &[1, 11, 22])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(cx.elem(0), conv_shape(cx, 0, 1)?)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if !is_f32(cx, 0) {
            return QuantRole::Opaque;
        }
        QuantRole::Compute(ComputeRole { activation: 0, weight: 1, bias: Some(2), weight_axis: 0 })
    }

    fn weight(&self, cx: &InferContext) -> Option<WeightRole> {
        let unfold = conv_patches(cx, 1).map(|patches| (0, Unfold::Patches(patches)));
        Some(WeightRole { slot: 1, channel_axis: 0, block_axis: 1, purpose: Purpose::Product(unfold) })
    }

    fn macs(&self, cx: &InferContext, outputs: &[Option<&Type>]) -> Option<u64> {
        conv_macs(cx, 1, outputs)
    }
}

/// Output elements times the weight's elements per output channel: `Cin / group * prod(kernel)`.
pub fn conv_macs(cx: &InferContext, w: usize, outputs: &[Option<&Type>]) -> Option<u64> {
    let out = outputs.first().copied().flatten()?.shape()?;
    let per_element = count(cx.shape(w)?.get(1..)?);
    Some(count(out).saturating_mul(per_element))
}
