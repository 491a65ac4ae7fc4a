//! DequantizeLinear.

use super::super::custom::{Fact, Kernel};
use super::layout::{Layout, Quantized, optional, required, spread, zero_points};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `y = (x - zero_point) * scale` (specification: DequantizeLinear, all versions), per tensor, per axis and blocked.
/// The type of `y` is that of the scale.
#[derive(Debug)]
pub(in crate::runtime) struct Dequantize {
    pub(in crate::runtime) axis: i64,
    pub(in crate::runtime) block: i64,
}

impl Dequantize {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let axis = node.get_attr_opt("axis")?.unwrap_or(1);
        Ok(Self { axis, block: node.get_attr_opt("block_size")?.unwrap_or(0) })
    }
}

impl Kernel for Dequantize {
    fn name(&self) -> &'static str {
        super::DEQUANTIZE
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let dtype = required(inputs, 1)?.dtype;
        Ok(tvec![Fact::new(dtype, required(inputs, 0)?.shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let (x, scale) = (required(inputs, 0)?, required(inputs, 1)?);
        let zero = optional(inputs, 2);
        let widest = zero.filter(|z| z.len() > scale.len()).unwrap_or(scale);
        let layout = Layout::new(x.shape(), widest.shape(), self.axis, self.block)?;
        let scales = scale.cast_to::<f32>()?;
        let scales = spread(scales.try_as_plain_ram()?.as_slice::<f32>()?, widest.len())?;
        let zeros = zero_points(zero, widest.len())?;
        let y = match x.datum_type() {
            DatumType::U8 => dequantize::<u8>(x, &layout, &scales, &zeros),
            DatumType::I8 => dequantize::<i8>(x, &layout, &scales, &zeros),
            DatumType::U16 => dequantize::<u16>(x, &layout, &scales, &zeros),
            DatumType::I16 => dequantize::<i16>(x, &layout, &scales, &zeros),
            DatumType::I32 => dequantize::<i32>(x, &layout, &scales, &zeros),
            other => bail!("DequantizeLinear of {other:?}"),
        }?;
        Ok(tvec![if scale.datum_type() == DatumType::F32 { y } else { y.cast_to_dt(scale.datum_type())?.into_owned() }])
    }
}

fn dequantize<T: Quantized>(x: &Tensor, layout: &Layout, scales: &[f32], zeros: &[i32]) -> TractResult<Tensor> {
    let mut y = Tensor::zero::<f32>(x.shape())?;
    let (from, mut view) = (x.try_as_plain_ram()?, y.try_as_plain_ram_mut()?);
    let (from, to) = (from.as_slice::<T>()?, view.as_slice_mut::<f32>()?);
    layout.map(from, to, scales, zeros, |x, scale, zero| x.to_i32().wrapping_sub(zero) as f32 * scale);
    Ok(y)
}
