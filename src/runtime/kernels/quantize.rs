//! QuantizeLinear and DynamicQuantizeLinear.

use super::super::custom::{Fact, Kernel};
use super::super::tensor::datum_type;
use super::layout::{Layout, Quantized, limit, optional, required, round_even, zero_points};
use crate::ir::DType;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `y = saturate(round_half_even(x / scale) + zero_point)` (specification: QuantizeLinear, all versions), per tensor, per
/// axis and blocked.
#[derive(Debug)]
pub(in crate::runtime) struct Quantize {
    axis: i64,
    block: i64,
    /// Type of `y` where there is no zero point.
    dtype: DatumType,
}

impl Quantize {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let axis = node.get_attr_opt("axis")?.unwrap_or(1);
        let code: i64 = node.get_attr_opt("output_dtype")?.unwrap_or(0);
        let code = if code == 0 { DType::U8 as i64 } else { code };
        let dtype = i32::try_from(code).ok().and_then(DType::from_onnx).and_then(datum_type);
        let dtype = dtype.with_context(|| format!("output_dtype {code} is not in tract"))?;
        Ok(Self { axis, block: node.get_attr_opt("block_size")?.unwrap_or(0), dtype })
    }
}

impl Kernel for Quantize {
    fn name(&self) -> &'static str {
        super::QUANTIZE
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let dtype = optional(inputs, 2).map_or(self.dtype, |z| z.dtype);
        Ok(tvec![Fact::new(dtype, required(inputs, 0)?.shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let (x, scale) = (required(inputs, 0)?, required(inputs, 1)?);
        let zero = optional(inputs, 2);
        let layout = Layout::new(x.shape(), scale.shape(), self.axis, self.block)?;
        let scales = scale.cast_to::<f32>()?;
        let scales = scales.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
        let zeros = zero_points(zero, scales.len())?;
        let x = x.cast_to::<f32>()?;
        let y = match zero.map_or(self.dtype, |z| z.datum_type()) {
            DatumType::U8 => quantize::<u8>(&x, &layout, &scales, &zeros),
            DatumType::I8 => quantize::<i8>(&x, &layout, &scales, &zeros),
            DatumType::U16 => quantize::<u16>(&x, &layout, &scales, &zeros),
            DatumType::I16 => quantize::<i16>(&x, &layout, &scales, &zeros),
            other => bail!("QuantizeLinear to {other:?}"),
        }?;
        Ok(tvec![y])
    }
}

fn quantize<T: Quantized>(x: &Tensor, layout: &Layout, scales: &[f32], zeros: &[i32]) -> TractResult<Tensor> {
    let mut y = Tensor::zero_dt(T::datum_type(), x.shape())?;
    let (from, mut view) = (x.try_as_plain_ram()?, y.try_as_plain_ram_mut()?);
    let (from, to) = (from.as_slice::<f32>()?, view.as_slice_mut::<T>()?);
    layout.map(from, to, scales, zeros, quantize_one::<T>);
    Ok(y)
}

/// Saturates before it rounds, which is the same because the limits are integers.
#[inline(always)]
fn quantize_one<T: Quantized>(x: f32, scale: f32, zero: i32) -> T {
    let (lo, hi) = (T::LOW - zero, T::HIGH - zero);
    T::from_i32(round_even(limit(x / scale, lo as f32, hi as f32)) + zero)
}

/// `y, y_scale, y_zero_point` of a range that always includes 0 (specification: DynamicQuantizeLinear).
#[derive(Debug)]
pub(super) struct DynamicQuantize;

impl Kernel for DynamicQuantize {
    fn name(&self) -> &'static str {
        super::DYNAMIC_QUANTIZE
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let scalar = |dtype| Fact::new(dtype, tvec![]);
        let y = Fact::new(DatumType::U8, required(inputs, 0)?.shape);
        Ok(tvec![y, scalar(DatumType::F32), scalar(DatumType::U8)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        let (mut min, mut max) = (0f32, 0f32);
        for &v in x.try_as_plain_ram()?.as_slice::<f32>()? {
            min = if v < min { v } else { min };
            max = if v > max { v } else { max };
        }
        // As ONNX Runtime: an all-zero tensor has scale 1.
        let scale = if min == max { 1.0 } else { (max - min) / 255.0 };
        let zero = (-min / scale).clamp(0.0, 255.0).round_ties_even() as u8;
        let layout = Layout::new(x.shape(), &[], 0, 0)?;
        let y = quantize::<u8>(x, &layout, &[scale], &[zero.into()])?;
        Ok(tvec![y, tensor0(scale), tensor0(zero)])
    }
}
