//! Mod.

use super::super::custom::{Fact, Kernel};
use super::common::{flag, zip};
use super::layout::required;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::tract_num_traits::Float;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::broadcast::multi_broadcast;

/// `Mod` (specification: versions 10 and 13): the remainder has the sign of the divisor, or with `fmod` that of the dividend.
/// tract ignores `fmod`, and swaps the operands where the first is constant.
#[derive(Debug)]
pub(super) struct Mod {
    truncated: bool,
}

impl Mod {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        Ok(Self { truncated: flag(node, "fmod")? })
    }

    fn float<T: Float>(&self, a: T, b: T) -> T {
        let rest = a % b;
        let other_sign = rest != T::zero() && (rest < T::zero()) != (b < T::zero());
        if !self.truncated && other_sign { rest + b } else { rest }
    }
}

macro_rules! integer {
    ($t:ty, $x:expr, $y:expr, $truncated:expr) => {{
        let truncated = $truncated;
        zip::<$t, $t>($x, $y, |a, b| {
            ensure!(b != 0, "Mod by zero");
            let rest = a.wrapping_rem(b);
            // A remainder of the other sign than the divisor's is one divisor off.
            Ok(if !truncated && rest != 0 && (rest < 0 as $t) != (b < 0 as $t) { rest.wrapping_add(b) } else { rest })
        })
    }};
}

impl Kernel for Mod {
    fn name(&self) -> &'static str {
        "Mod"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let (x, y) = (required(inputs, 0)?, required(inputs, 1)?);
        ensure!(x.dtype == y.dtype, "{:?} modulo {:?}", x.dtype, y.dtype);
        Ok(tvec![Fact::new(x.dtype, multi_broadcast(&[x.shape, y.shape])?)])
    }

    #[allow(unused_comparisons)]
    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let (x, y) = (required(inputs, 0)?, required(inputs, 1)?);
        let dtype = x.datum_type();
        Ok(tvec![match dtype {
            DatumType::U8 => integer!(u8, x, y, self.truncated),
            DatumType::U16 => integer!(u16, x, y, self.truncated),
            DatumType::U32 => integer!(u32, x, y, self.truncated),
            DatumType::U64 => integer!(u64, x, y, self.truncated),
            DatumType::I8 => integer!(i8, x, y, self.truncated),
            DatumType::I16 => integer!(i16, x, y, self.truncated),
            DatumType::I32 => integer!(i32, x, y, self.truncated),
            DatumType::I64 => integer!(i64, x, y, self.truncated),
            DatumType::F32 => zip::<f32, f32>(x, y, |a, b| Ok(self.float(a, b))),
            DatumType::F64 => zip::<f64, f64>(x, y, |a, b| Ok(self.float(a, b))),
            DatumType::F16 => zip::<f16, f16>(x, y, |a, b| Ok(f16::from_f32(self.float(a.to_f32(), b.to_f32())))),
            other => bail!("Mod of {other:?}"),
        }?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_zero_and_overflow() {
        let run = |truncated, x: &Tensor, y: &Tensor| Mod { truncated }.eval(&[Some(x), Some(y)]).map(|y| y[0].clone());
        let (x, y) = (tensor1(&[-5i32, 5, -5, 5, i32::MIN]), tensor1(&[3i32, -3, -3, 3, -1]));
        assert_eq!(run(false, &x, &y).unwrap(), tensor1(&[1i32, -1, -2, 2, 0]));
        assert_eq!(run(true, &x, &y).unwrap(), tensor1(&[-2i32, 2, -2, 2, 0]));
        assert_eq!(run(false, &tensor0(7u8), &tensor1(&[2u8, 4])).unwrap(), tensor1(&[1u8, 3]));
        assert!(run(false, &x, &tensor0(0i32)).is_err());
        assert_eq!(run(true, &tensor0(-1.5f32), &tensor0(1f32)).unwrap(), tensor0(-0.5f32));
        assert_eq!(run(false, &tensor0(-1.5f32), &tensor0(1f32)).unwrap(), tensor0(0.5f32));
    }
}
