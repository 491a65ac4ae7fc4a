//! ReduceMax and ReduceMin.

use super::super::custom::{Fact, Kernel};
use super::layout::required;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_ndarray::Axis;

/// `ReduceMax` or `ReduceMin` over known axes (specification: all versions). tract's own start from the largest finite number,
/// which is wrong for a slice that is infinite throughout, such as a row of an attention mask.
#[derive(Debug)]
pub(super) struct Extreme {
    axes: Vec<i64>,
    keep: bool,
    noop: bool,
    max: bool,
}

impl Extreme {
    pub(super) fn parse(node: &NodeProto, max: bool) -> TractResult<Self> {
        let axes: Option<Vec<i64>> = node.get_attr_opt_vec("axes")?;
        let keep = node.get_attr_opt::<i64>("keepdims")?.unwrap_or(1) != 0;
        let noop = node.get_attr_opt::<i64>("noop_with_empty_axes")?.unwrap_or(0) != 0;
        Ok(Self { axes: axes.unwrap_or_default(), keep, noop, max })
    }

    /// Reduced axes, descending.
    fn axes(&self, rank: usize) -> TractResult<Vec<usize>> {
        if self.axes.is_empty() {
            return Ok(if self.noop { vec![] } else { (0..rank).rev().collect() });
        }
        let positive = |&a: &i64| {
            let a = if a < 0 { a + rank as i64 } else { a };
            ensure!((0..rank as i64).contains(&a), "axis {a} of a tensor of rank {rank}");
            Ok(a as usize)
        };
        let mut axes: Vec<usize> = self.axes.iter().map(positive).collect::<TractResult<_>>()?;
        axes.sort_unstable_by(|a, b| b.cmp(a));
        axes.dedup();
        Ok(axes)
    }
}

impl Kernel for Extreme {
    fn name(&self) -> &'static str {
        if self.max { super::REDUCE_MAX } else { super::REDUCE_MIN }
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let mut x = required(inputs, 0)?;
        for a in self.axes(x.shape.len())? {
            if self.keep {
                x.shape[a] = 1.to_dim();
            } else {
                x.shape.remove(a);
            }
        }
        Ok(tvec![x])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        let axes = self.axes(x.rank())?;
        macro_rules! typed {
            ($t:ty, $low:expr, $high:expr) => {
                if self.max {
                    reduce::<$t>(x, &axes, self.keep, $low, |x, best| x > best)
                } else {
                    reduce::<$t>(x, &axes, self.keep, $high, |x, best| x < best)
                }
            };
        }
        Ok(tvec![match x.datum_type() {
            DatumType::F32 => typed!(f32, f32::NEG_INFINITY, f32::INFINITY),
            DatumType::F64 => typed!(f64, f64::NEG_INFINITY, f64::INFINITY),
            DatumType::F16 => typed!(f16, f16::NEG_INFINITY, f16::INFINITY),
            DatumType::I64 => typed!(i64, i64::MIN, i64::MAX),
            DatumType::I32 => typed!(i32, i32::MIN, i32::MAX),
            DatumType::I8 => typed!(i8, i8::MIN, i8::MAX),
            DatumType::U8 => typed!(u8, u8::MIN, u8::MAX),
            DatumType::U32 => typed!(u32, u32::MIN, u32::MAX),
            DatumType::U64 => typed!(u64, u64::MIN, u64::MAX),
            DatumType::Bool => typed!(bool, false, true),
            other => bail!("reducing {other:?}"),
        }?])
    }
}

fn reduce<T: Datum + Copy>(
    x: &Tensor,
    axes: &[usize],
    keep: bool,
    start: T,
    better: impl Fn(T, T) -> bool,
) -> TractResult<Tensor> {
    let mut array = x.to_plain_array_view::<T>()?.to_owned();
    for &axis in axes {
        array = array.fold_axis(Axis(axis), start, |&best, &x| if better(x, best) { x } else { best });
        if keep {
            array = array.insert_axis(Axis(axis));
        }
    }
    Ok(array.into())
}
