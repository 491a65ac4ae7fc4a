//! ReduceMax and ReduceMin.

use super::super::custom::{Fact, Kernel};
use super::common::{axis_of, constant, flag, i64s, int, ints};
use super::layout::{optional, required};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_ndarray::Axis;

/// Which axes a reduction takes away.
#[derive(Debug)]
pub(super) struct Axes {
    /// As attributes; where there is a second input, that says.
    pub(super) axes: Vec<i64>,
    pub(super) keep: bool,
    pub(super) noop: bool,
}

impl Axes {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let axes = ints(node, "axes")?.unwrap_or_default();
        let keep = int(node, "keepdims", 1)? != 0;
        Ok(Self { axes, keep, noop: flag(node, "noop_with_empty_axes")? })
    }

    /// Reduced axes, descending.
    pub(super) fn reduced(&self, rank: usize, given: Option<&Tensor>) -> TractResult<Vec<usize>> {
        let axes = given.map(i64s).transpose()?.unwrap_or_else(|| self.axes.clone());
        if axes.is_empty() {
            return Ok(if self.noop { vec![] } else { (0..rank).rev().collect() });
        }
        let mut axes: Vec<usize> = axes.into_iter().map(|a| axis_of(a, rank)).collect::<TractResult<_>>()?;
        axes.sort_unstable_by(|a, b| b.cmp(a));
        axes.dedup();
        Ok(axes)
    }

    /// The type of what is left.
    pub(super) fn fact(&self, inputs: &[Option<Fact>]) -> TractResult<Fact> {
        let mut x = required(inputs, 0)?;
        let given = optional(inputs, 1).map(|_| constant(inputs, 1, "the axes")).transpose()?;
        for a in self.reduced(x.shape.len(), given.as_deref())? {
            if self.keep {
                x.shape[a] = 1.to_dim();
            } else {
                x.shape.remove(a);
            }
        }
        Ok(x)
    }
}

/// `ReduceMax` or `ReduceMin` (specification: all versions). tract's own start from the largest finite number, which is wrong for a
/// slice that is infinite throughout, such as a row of an attention mask.
#[derive(Debug)]
pub(super) struct Extreme {
    axes: Axes,
    max: bool,
}

impl Extreme {
    pub(super) fn parse(node: &NodeProto, max: bool) -> TractResult<Self> {
        Ok(Self { axes: Axes::parse(node)?, max })
    }
}

impl Kernel for Extreme {
    fn name(&self) -> &'static str {
        if self.max { "ReduceMax" } else { "ReduceMin" }
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        Ok(tvec![self.axes.fact(inputs)?])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        let axes = self.axes.reduced(x.rank(), optional(inputs, 1))?;
        macro_rules! typed {
            ($t:ty, $low:expr, $high:expr) => {
                if self.max {
                    reduce::<$t>(x, &axes, self.axes.keep, $low, |x, best| x > best)
                } else {
                    reduce::<$t>(x, &axes, self.axes.keep, $high, |x, best| x < best)
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
