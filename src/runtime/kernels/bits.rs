//! BitShift and BitCast.

use super::super::custom::{Fact, Kernel};
use super::super::tensor::datum_type;
use super::common::{int, text, zip};
use super::layout::required;
use crate::ir::DType;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::broadcast::multi_broadcast;

/// `BitShift` (specification: versions 11 and 28). Amounts that are negative, or not below the number of bits, leave what the
/// sign alone leaves: 0, or -1 for a negative number to the right. tract panics on them.
#[derive(Debug)]
pub(super) struct Shift {
    left: bool,
}

impl Shift {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let direction = text(node, "direction", "")?;
        ensure!(direction == "LEFT" || direction == "RIGHT", "direction \"{direction}\"");
        Ok(Self { left: direction == "LEFT" })
    }
}

/// An integer that can be shifted.
trait Bits: Datum + Copy {
    fn shifted(self, by: Self, left: bool) -> Self;
}

macro_rules! bits {
    ($($t:ty),*) => { $(impl Bits for $t {
        fn shifted(self, by: Self, left: bool) -> Self {
            let by = u32::try_from(by).ok().filter(|&by| by < <$t>::BITS);
            match (by, left) {
                (Some(by), true) => self << by,
                (Some(by), false) => self >> by,
                (None, true) => 0,
                // All but the sign of a signed number; 0 of an unsigned one.
                (None, false) => (self >> (<$t>::BITS - 1)) >> if <$t>::MIN == 0 { 1 } else { 0 },
            }
        }
    })* };
}
bits!(u8, u16, u32, u64, i8, i16, i32, i64);

fn shift<T: Bits>(x: &Tensor, by: &Tensor, left: bool) -> TractResult<Tensor> {
    zip::<T, T>(x, by, |x, by| Ok(x.shifted(by, left)))
}

impl Kernel for Shift {
    fn name(&self) -> &'static str {
        "BitShift"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let (x, by) = (required(inputs, 0)?, required(inputs, 1)?);
        ensure!(x.dtype == by.dtype, "shifting {:?} by {:?}", x.dtype, by.dtype);
        Ok(tvec![Fact::new(x.dtype, multi_broadcast(&[x.shape, by.shape])?)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let (x, by) = (required(inputs, 0)?, required(inputs, 1)?);
        Ok(tvec![match x.datum_type() {
            DatumType::U8 => shift::<u8>(x, by, self.left),
            DatumType::U16 => shift::<u16>(x, by, self.left),
            DatumType::U32 => shift::<u32>(x, by, self.left),
            DatumType::U64 => shift::<u64>(x, by, self.left),
            DatumType::I8 => shift::<i8>(x, by, self.left),
            DatumType::I16 => shift::<i16>(x, by, self.left),
            DatumType::I32 => shift::<i32>(x, by, self.left),
            DatumType::I64 => shift::<i64>(x, by, self.left),
            other => bail!("shifting {other:?}"),
        }?])
    }
}

/// `BitCast` (specification: version 26): the same bits as another type of the same width.
#[derive(Debug)]
pub(super) struct BitCast {
    to: DatumType,
}

impl BitCast {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let code = int(node, "to", 0)?;
        let to = i32::try_from(code).ok().and_then(DType::from_onnx).and_then(datum_type);
        let to = to.filter(|t| t.is_copy()).with_context(|| format!("to = {code} is not in tract"))?;
        Ok(Self { to })
    }

    fn check(&self, from: DatumType) -> TractResult<()> {
        let plain = from.is_copy() && from != DatumType::Bool && self.to != DatumType::Bool;
        ensure!(plain && from.size_of() == self.to.size_of(), "the bits of {from:?} as {:?}", self.to);
        Ok(())
    }
}

impl Kernel for BitCast {
    fn name(&self) -> &'static str {
        "BitCast"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let x = required(inputs, 0)?;
        self.check(x.dtype)?;
        Ok(tvec![Fact::new(self.to, x.shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        self.check(x.datum_type())?;
        let mut y = Tensor::zero_dt(self.to, x.shape())?;
        y.as_bytes_mut().copy_from_slice(x.as_bytes());
        Ok(tvec![y])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_out_of_range_leave_the_sign() {
        let shift = |x: i8, by: i8, left: bool| x.shifted(by, left);
        assert_eq!((shift(-5, 9, false), shift(-5, -1, false), shift(5, 8, false)), (-1, -1, 0));
        assert_eq!((shift(-5, 8, true), shift(1, 7, true), shift(-5, 1, false)), (0, -128, -3));
        assert_eq!((200u8.shifted(8, false), 200u8.shifted(7, false), 200u8.shifted(1, true)), (0, 1, 144));
    }

    #[test]
    fn shapes_broadcast_and_may_be_empty() {
        let left = Shift { left: true };
        let (x, by) = (tensor2(&[[1u32], [2]]), tensor1(&[0u32, 1, 40]));
        let y = left.eval(&[Some(&x), Some(&by)]).unwrap();
        assert_eq!(y[0], tensor2(&[[1u32, 2, 0], [2, 4, 0]]));
        let none = Tensor::zero::<u32>(&[0]).unwrap();
        assert_eq!(left.eval(&[Some(&none), Some(&tensor0(1u32))]).unwrap()[0].shape(), &[0]);
    }

    #[test]
    fn the_width_stays() {
        let cast = BitCast { to: DatumType::I32 };
        assert_eq!(cast.eval(&[Some(&tensor1(&[1.0f32]))]).unwrap()[0], tensor1(&[0x3f80_0000i32]));
        assert!(cast.eval(&[Some(&tensor1(&[1.0f64]))]).is_err());
    }
}
