//! Activations that keep NaN.

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::element_wise::ElementWiseOp as Hir;
use tract_onnx::tract_hir::tract_core::ops::{math, nn};

/// `Relu`, `Sigmoid`, `Tanh` and `HardSigmoid` (specification: all versions). tract's own turn NaN into an ordinary number, and so a model that
/// is broken into one that looks sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Activation {
    Relu,
    Sigmoid,
    Tanh,
    /// The bits of alpha and beta.
    HardSigmoid(u32, u32),
}

impl Activation {
    pub(super) fn hard_sigmoid(node: &NodeProto) -> TractResult<Self> {
        let bits =
            |name, default: f32| -> TractResult<u32> { Ok(node.get_attr_opt(name)?.unwrap_or(default).to_bits()) };
        Ok(Self::HardSigmoid(bits("alpha", 0.2)?, bits("beta", 0.5)?))
    }

    /// As tract wants it.
    pub(super) fn op(self) -> Box<dyn InferenceOp> {
        expand(Hir(Box::new(self)))
    }
}

/// Numbers below zero become zero.
fn relu<T: Datum + PartialOrd + Default + Copy>(t: &mut Tensor) -> TractResult<()> {
    let zero = T::default();
    for x in t.try_as_plain_ram_mut()?.as_slice_mut::<T>()? {
        *x = if *x < zero { zero } else { *x };
    }
    Ok(())
}

fn in_f64(t: &mut Tensor, f: impl Fn(f64) -> f64) -> TractResult<()> {
    for x in t.try_as_plain_ram_mut()?.as_slice_mut::<f64>()? {
        *x = f(*x);
    }
    Ok(())
}

/// tract's own, with NaN put back.
fn single(t: &mut Tensor, op: &dyn ElementWiseMiniOp) -> TractResult<()> {
    let broken: Vec<usize> = {
        let view = t.try_as_plain_ram()?;
        let x = view.as_slice::<f32>()?;
        // One pass that vectorizes; NaN is rare.
        let any = x.iter().fold(false, |any, x| any | x.is_nan());
        if any { x.iter().enumerate().filter(|(_, x)| x.is_nan()).map(|(k, _)| k).collect() } else { vec![] }
    };
    op.eval_in_place(t, None)?;
    let mut view = t.try_as_plain_ram_mut()?;
    let x = view.as_slice_mut::<f32>()?;
    broken.into_iter().for_each(|k| x[k] = f32::NAN);
    Ok(())
}

impl ElementWiseMiniOp for Activation {
    fn name(&self) -> String {
        format!("Sardonyx.{self:?}")
    }

    fn eval_in_place(&self, t: &mut Tensor, _out_dt: Option<DatumType>) -> TractResult<()> {
        if t.datum_type() == DatumType::F16 {
            let mut wide = t.cast_to::<f32>()?.into_owned();
            self.eval_in_place(&mut wide, None)?;
            *t = wide.cast_to::<f16>()?.into_owned();
            return Ok(());
        }
        match (self, t.datum_type()) {
            (Self::Relu, DatumType::F32) => relu::<f32>(t),
            (Self::Relu, DatumType::F64) => relu::<f64>(t),
            (Self::Relu, DatumType::I8) => relu::<i8>(t),
            (Self::Relu, DatumType::I16) => relu::<i16>(t),
            (Self::Relu, DatumType::I32) => relu::<i32>(t),
            (Self::Relu, DatumType::I64) => relu::<i64>(t),
            (Self::Sigmoid, DatumType::F32) => single(t, &*nn::sigmoid().0),
            (Self::Sigmoid, DatumType::F64) => in_f64(t, |x| 1.0 / (1.0 + (-x).exp())),
            (Self::Tanh, DatumType::F32) => single(t, &*math::tanh().0),
            (Self::Tanh, DatumType::F64) => in_f64(t, f64::tanh),
            (Self::HardSigmoid(alpha, beta), DatumType::F32) => {
                let (alpha, beta) = (f32::from_bits(*alpha), f32::from_bits(*beta));
                for x in t.try_as_plain_ram_mut()?.as_slice_mut::<f32>()? {
                    // Unlike min and max, clamp keeps NaN.
                    *x = (alpha * *x + beta).clamp(0.0, 1.0);
                }
                Ok(())
            }
            (Self::HardSigmoid(alpha, beta), DatumType::F64) => {
                let (alpha, beta) = (f64::from(f32::from_bits(*alpha)), f64::from(f32::from_bits(*beta)));
                in_f64(t, |x| (alpha * x + beta).clamp(0.0, 1.0))
            }
            (_, other) => bail!("{self:?} of {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_stays_and_the_others_are_as_ever() {
        for (op, at_one) in
            [(Activation::Relu, 1.0), (Activation::Sigmoid, 0.731_058_6), (Activation::Tanh, 0.761_594_2)]
        {
            let mut t = tensor1(&[1f32, f32::NAN, -200.0]);
            op.eval_in_place(&mut t, None).unwrap();
            let view = t.try_as_plain_ram().unwrap();
            let y = view.as_slice::<f32>().unwrap();
            assert!((y[0] - at_one).abs() < 1e-6 && y[1].is_nan() && y[2] <= 1e-6, "{op:?}: {y:?}");
            let mut half = tensor1(&[f16::NAN]);
            op.eval_in_place(&mut half, None).unwrap();
            assert_eq!(half.datum_type(), DatumType::F16);
            op.eval_in_place(&mut Tensor::zero::<f32>(&[0]).unwrap(), None).unwrap();
        }
    }
}
