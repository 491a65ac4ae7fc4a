//! Slice.

use super::super::custom::{Fact, Kernel};
use super::common::{axis_of, concrete, constant, fact, i64s, ints};
use super::layout::{optional, required};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `Slice` (specification: versions 1 to 13) in either direction, with bounds as far out as may be.
#[derive(Debug)]
pub(super) struct Slice {
    /// Starts, ends and axes as attributes (before version 10).
    old: Option<Bounds>,
}

/// Starts, ends and axes.
type Bounds = (Vec<i64>, Vec<i64>, Option<Vec<i64>>);

/// Along one axis: where to start, how many to take, and what lies between them.
#[derive(Clone, Copy)]
struct Stretch {
    start: i64,
    count: usize,
    step: i64,
}

impl Slice {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let old = ints(node, "starts")?.zip(ints(node, "ends")?);
        let axes = ints(node, "axes")?;
        Ok(Self { old: old.map(|(starts, ends)| (starts, ends, axes)) })
    }

    fn stretches(&self, x: &[usize], inputs: &[Option<&Tensor>]) -> TractResult<TVec<Stretch>> {
        let given = |slot: usize| inputs.get(slot).copied().flatten().map(i64s).transpose();
        let (starts, ends, axes) = match (given(1)?, given(2)?, &self.old) {
            (Some(starts), Some(ends), _) => (starts, ends, given(3)?),
            (_, _, Some(old)) => old.clone(),
            _ => bail!("no starts and ends"),
        };
        let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = given(4)?.unwrap_or_else(|| vec![1; starts.len()]);
        let same = ends.len() == starts.len() && axes.len() == starts.len() && steps.len() == starts.len();
        ensure!(same, "starts {starts:?}, ends {ends:?}, axes {axes:?}, steps {steps:?}");
        let mut all: TVec<Stretch> = x.iter().map(|&count| Stretch { start: 0, count, step: 1 }).collect();
        for (k, &axis) in axes.iter().enumerate() {
            let axis = axis_of(axis, x.len())?;
            all[axis] = stretch(x[axis] as i64, starts[k], ends[k], steps[k])?;
        }
        Ok(all)
    }
}

fn stretch(size: i64, start: i64, end: i64, step: i64) -> TractResult<Stretch> {
    ensure!(step != 0, "a step of 0");
    if size == 0 {
        return Ok(Stretch { start: 0, count: 0, step: 1 });
    }
    let from_end = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
    if step > 0 {
        let (start, end) = (from_end(start).clamp(0, size), from_end(end).clamp(0, size));
        return Ok(Stretch { start, count: ((end - start).max(0) as u64).div_ceil(step as u64) as usize, step });
    }
    // ONNX Runtime takes these for "as far as it goes", numpy for the last element.
    ensure!(end != i64::MAX && end != i64::from(i32::MAX), "a backward slice to {end}");
    let (start, end) = (from_end(start).clamp(0, size - 1), from_end(end).clamp(-1, size - 1));
    Ok(Stretch { start, count: ((start - end).max(0) as u64).div_ceil(step.unsigned_abs()) as usize, step })
}

/// The elements of the stretches.
fn slice<T: Datum + Copy>(x: &Tensor, stretches: &[Stretch]) -> TractResult<Tensor> {
    let mut view = x.to_plain_array_view::<T>()?;
    for (axis, s) in stretches.iter().enumerate() {
        // In terms of ndarray: bounds in ascending order, then a step that may turn them around.
        let reach = (s.count as i64 - 1).max(0).saturating_mul(s.step);
        let (low, high) = if s.step > 0 { (s.start, s.start + reach) } else { (s.start + reach, s.start) };
        let end = if s.count == 0 { low } else { high + 1 };
        // More than one element makes the step smaller than the axis; otherwise any step will do.
        let step = if s.count > 1 { s.step as isize } else { 1 };
        view.slice_axis_inplace(
            tract_ndarray::Axis(axis),
            tract_ndarray::Slice::new(low as isize, Some(end as isize), step),
        );
    }
    Ok(view.as_standard_layout().into_owned().into())
}

impl Kernel for Slice {
    fn name(&self) -> &'static str {
        "Slice"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let x = required(inputs, 0)?;
        let known = |slot: usize| -> TractResult<Option<Arc<Tensor>>> {
            optional(inputs, slot).map(|_| constant(inputs, slot, "what is sliced")).transpose()
        };
        let bounds: TVec<Option<Arc<Tensor>>> = (1..5).map(known).collect::<TractResult<_>>()?;
        let slots: Vec<Option<&Tensor>> = std::iter::once(None).chain(bounds.iter().map(|b| b.as_deref())).collect();
        let stretches = self.stretches(&concrete(&x.shape)?, &slots)?;
        Ok(tvec![fact(x.dtype, &stretches.iter().map(|s| s.count).collect::<TVec<_>>())])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        let stretches = self.stretches(x.shape(), inputs)?;
        Ok(tvec![match x.datum_type() {
            DatumType::Bool => slice::<bool>(x, &stretches),
            DatumType::U8 => slice::<u8>(x, &stretches),
            DatumType::U16 => slice::<u16>(x, &stretches),
            DatumType::U32 => slice::<u32>(x, &stretches),
            DatumType::U64 => slice::<u64>(x, &stretches),
            DatumType::I8 => slice::<i8>(x, &stretches),
            DatumType::I16 => slice::<i16>(x, &stretches),
            DatumType::I32 => slice::<i32>(x, &stretches),
            DatumType::I64 => slice::<i64>(x, &stretches),
            DatumType::F16 => slice::<f16>(x, &stretches),
            DatumType::F32 => slice::<f32>(x, &stretches),
            DatumType::F64 => slice::<f64>(x, &stretches),
            other => bail!("slicing {other:?}"),
        }?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_as_far_out_as_may_be() {
        let x = tensor1(&[0i32, 1, 2, 3, 4]);
        let run = |start: i64, end: i64, step: i64| {
            let (start, end, step) = (tensor1(&[start]), tensor1(&[end]), tensor1(&[step]));
            let op = Slice { old: None };
            let y = op.eval(&[Some(&x), Some(&start), Some(&end), None, Some(&step)])?;
            TractResult::Ok(y[0].try_as_plain_ram()?.as_slice::<i32>()?.to_vec())
        };
        assert_eq!(run(i64::MIN, i64::MAX, 2).unwrap(), [0, 2, 4]);
        assert_eq!(run(i64::MAX, i64::MIN, -2).unwrap(), [4, 2, 0]);
        assert_eq!(run(-7, 10, -2).unwrap(), [] as [i32; 0]);
        assert_eq!(run(-7, -9, -2).unwrap(), [0]);
        assert!(run(3, i64::MAX, -1).is_err());
        assert_eq!(run(0, i64::MIN, -3).unwrap(), [0]);
        assert_eq!(run(3, 3, 1).unwrap(), [] as [i32; 0]);
        assert_eq!(run(1, -1, i64::MAX).unwrap(), [1]);
        assert_eq!(run(4, 0, i64::MIN).unwrap(), [4]);
        assert!(run(0, 1, 0).is_err());
        let none = Tensor::zero::<f32>(&[0, 2]).unwrap();
        let y = Slice { old: Some((vec![0], vec![1], None)) }.eval(&[Some(&none)]).unwrap();
        assert_eq!(y[0].shape(), &[0, 2]);
    }
}
