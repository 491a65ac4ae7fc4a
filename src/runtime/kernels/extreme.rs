//! Max and Min.

use super::super::custom::{Fact, Kernel};
use super::common::zip;
use super::layout::required;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::broadcast::multi_broadcast;

/// `Max` or `Min` (specification: versions 8 to 13) of one tensor or more. NaN wins; in tract, it loses.
#[derive(Debug)]
pub(super) struct Extremum {
    pub(super) max: bool,
}

/// The greater number, or NaN.
fn greater<T: PartialOrd>(a: T, b: T) -> T {
    // Only NaN is not equal to itself.
    #[allow(clippy::eq_op)]
    if a > b || a != a { a } else { b }
}

/// The lesser number, or NaN.
fn lesser<T: PartialOrd>(a: T, b: T) -> T {
    #[allow(clippy::eq_op)]
    if a < b || a != a { a } else { b }
}

impl Kernel for Extremum {
    fn name(&self) -> &'static str {
        if self.max { "Max" } else { "Min" }
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let dtype = required(inputs, 0)?.dtype;
        let all: TVec<Fact> = (0..inputs.len()).map(|k| required(inputs, k)).collect::<TractResult<_>>()?;
        ensure!(all.iter().all(|f| f.dtype == dtype), "{} of several types", self.name());
        let shapes: TVec<TVec<TDim>> = all.into_iter().map(|f| f.shape).collect();
        Ok(tvec![Fact::new(dtype, multi_broadcast(&shapes)?)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let mut best = required(inputs, 0)?.clone();
        for k in 1..inputs.len() {
            let x = required(inputs, k)?;
            macro_rules! typed {
                ($($name:ident $t:ty),*) => {
                    match best.datum_type() {
                        $(DatumType::$name if self.max => zip::<$t, $t>(&best, x, |a, b| Ok(greater(a, b))),
                        DatumType::$name => zip::<$t, $t>(&best, x, |a, b| Ok(lesser(a, b))),)*
                        other => bail!("{} of {other:?}", self.name()),
                    }
                };
            }
            best = typed!(
                F32 f32, F64 f64, F16 f16, U8 u8, U16 u16, U32 u32, U64 u64, I8 i8, I16 i16, I32 i32, I64 i64
            )?;
        }
        Ok(tvec![best])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_wins_on_either_side() {
        let (x, y) = (tensor1(&[f32::NAN, 1.0, 2.0]), tensor1(&[1f32, f32::NAN, 3.0]));
        for (max, last) in [(true, 3.0), (false, 2.0)] {
            let out = Extremum { max }.eval(&[Some(&x), Some(&y)]).unwrap();
            let view = out[0].try_as_plain_ram().unwrap();
            let out = view.as_slice::<f32>().unwrap();
            assert!(out[0].is_nan() && out[1].is_nan() && out[2] == last, "{out:?}");
        }
    }

    #[test]
    fn one_or_many_of_shapes_that_broadcast() {
        let max = Extremum { max: true };
        let (x, y, z) = (tensor1(&[1i64, 5]), tensor2(&[[2i64], [7]]), tensor0(3i64));
        assert_eq!(max.eval(&[Some(&x), Some(&y), Some(&z)]).unwrap()[0], tensor2(&[[3i64, 5], [7, 7]]));
        assert_eq!(max.eval(&[Some(&x)]).unwrap()[0], x);
        assert!(max.eval(&[Some(&x), Some(&tensor1(&[1i64, 2, 3]))]).is_err());
    }
}
