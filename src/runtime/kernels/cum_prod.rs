//! CumProd.

use super::super::custom::{Fact, Kernel};
use super::common::{axis_of, flag, i64s};
use super::layout::required;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `CumProd` (specification: version 26): products of the elements up to each one along an axis.
#[derive(Debug)]
pub(super) struct CumProd {
    exclusive: bool,
    reverse: bool,
}

impl CumProd {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        Ok(Self { exclusive: flag(node, "exclusive")?, reverse: flag(node, "reverse")? })
    }

    fn products<T: Datum + Copy>(
        &self,
        x: &Tensor,
        axis: usize,
        one: T,
        times: impl Fn(T, T) -> T,
    ) -> TractResult<Tensor> {
        let mut y = x.to_plain_array_view::<T>()?.to_owned();
        for mut lane in y.lanes_mut(tract_ndarray::Axis(axis)) {
            let mut product = one;
            let len = lane.len();
            for k in 0..len {
                let at = &mut lane[if self.reverse { len - 1 - k } else { k }];
                let next = times(product, *at);
                *at = if self.exclusive { product } else { next };
                product = next;
            }
        }
        Ok(y.into())
    }
}

impl Kernel for CumProd {
    fn name(&self) -> &'static str {
        "CumProd"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        Ok(tvec![required(inputs, 0)?])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        let [axis] = *i64s(required(inputs, 1)?)? else { bail!("one axis is expected") };
        let axis = axis_of(axis, x.rank())?;
        Ok(tvec![match x.datum_type() {
            DatumType::F32 => self.products(x, axis, 1f32, |a, b| a * b),
            DatumType::F64 => self.products(x, axis, 1f64, |a, b| a * b),
            DatumType::I32 => self.products(x, axis, 1i32, i32::wrapping_mul),
            DatumType::I64 => self.products(x, axis, 1i64, i64::wrapping_mul),
            DatumType::U32 => self.products(x, axis, 1u32, u32::wrapping_mul),
            DatumType::U64 => self.products(x, axis, 1u64, u64::wrapping_mul),
            other => bail!("products of {other:?}"),
        }?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_and_an_empty_axis() {
        let run = |x: &Tensor, axis: i64, exclusive, reverse| {
            CumProd { exclusive, reverse }.eval(&[Some(x), Some(&tensor0(axis))]).map(|y| y[0].clone())
        };
        let x = tensor2(&[[1i32, 2, 3], [4, 5, 6]]);
        assert_eq!(run(&x, -1, false, true).unwrap(), tensor2(&[[6, 6, 3], [120, 30, 6]]));
        assert_eq!(run(&x, 0, true, false).unwrap(), tensor2(&[[1, 1, 1], [1, 2, 3]]));
        let empty = Tensor::zero::<f32>(&[2, 0]).unwrap();
        assert_eq!(run(&empty, 1, false, false).unwrap().shape(), &[2, 0]);
        assert!(run(&x, 2, false, false).is_err());
    }
}
