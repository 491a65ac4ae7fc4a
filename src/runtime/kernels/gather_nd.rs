//! GatherND and ScatterND.

use super::super::custom::{Fact, Kernel};
use super::common::{concrete, i64s, int, slice, strides, text};
use super::layout::required;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// Where the slices of `data` lie that the rows of `indices` name, for each row: first element. `batch` leading axes are shared.
fn places(data: &[usize], indices: &Tensor, batch: usize) -> TractResult<(Vec<usize>, usize)> {
    let shape = indices.shape();
    let Some((&depth, rows)) = shape.split_last() else { bail!("indices of rank 0") };
    ensure!(batch + depth <= data.len() && batch < shape.len(), "indices of shape {shape:?} in {data:?}");
    ensure!(
        shape[..batch] == data[..batch],
        "indices of shape {shape:?} in {data:?}, of which {batch} axes are shared"
    );
    let steps = strides(data);
    let per_batch: usize = rows[batch..].iter().product();
    let batch_step: usize = data[batch..].iter().product();
    let indices = i64s(indices)?;
    let row = |r: usize| {
        let mut place = r / per_batch.max(1) * batch_step;
        for k in 0..depth {
            let (at, size) = (indices[r * depth + k], data[batch + k] as i64);
            let at = if at < 0 { at + size } else { at };
            ensure!((0..size).contains(&at), "index {} of {size}", indices[r * depth + k]);
            place += at as usize * steps[batch + k];
        }
        Ok(place)
    };
    let count: usize = rows.iter().product();
    let places = (0..count).map(row).collect::<TractResult<_>>()?;
    Ok((places, data[batch + depth..].iter().product()))
}

/// `GatherND` (specification: versions 11 to 13), with negative indices, which tract lacks.
#[derive(Debug)]
pub(super) struct GatherNd {
    batch: usize,
}

impl GatherNd {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        Ok(Self { batch: usize::try_from(int(node, "batch_dims", 0)?)? })
    }
}

impl Kernel for GatherNd {
    fn name(&self) -> &'static str {
        "GatherND"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let (data, indices) = (required(inputs, 0)?, required(inputs, 1)?);
        let (depth, rows) = indices.shape.split_last().context("indices of rank 0")?;
        let depth = depth.to_usize()?;
        let rest = data.shape.get(self.batch.saturating_add(depth)..).context("indices deeper than the data")?;
        Ok(tvec![Fact::new(data.dtype, rows.iter().chain(rest).cloned().collect())])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let (data, indices) = (required(inputs, 0)?, required(inputs, 1)?);
        ensure!(data.datum_type().is_copy(), "GatherND of {:?}", data.datum_type());
        let (places, len) = places(data.shape(), indices, self.batch)?;
        let rows = &indices.shape()[..indices.rank() - 1];
        let depth = indices.shape()[indices.rank() - 1];
        let shape: TVec<usize> = rows.iter().chain(&data.shape()[self.batch + depth..]).copied().collect();
        let size = data.datum_type().size_of();
        let mut y = Tensor::zero_dt(data.datum_type(), &shape)?;
        let (from, to) = (data.as_bytes(), y.as_bytes_mut());
        for (place, line) in places.into_iter().zip(to.chunks_mut((len * size).max(1))) {
            line.copy_from_slice(&from[place * size..][..len * size]);
        }
        Ok(tvec![y])
    }
}

/// What is done to an element that is written.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reduction {
    None,
    Add,
    Mul,
    Max,
    Min,
}

/// `ScatterND` (specification: versions 11 to 18), with negative indices, which tract lacks.
#[derive(Debug)]
pub(super) struct ScatterNd {
    reduction: Reduction,
}

impl ScatterNd {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let reduction = match &*text(node, "reduction", "none")? {
            "none" => Reduction::None,
            "add" => Reduction::Add,
            "mul" => Reduction::Mul,
            "max" => Reduction::Max,
            "min" => Reduction::Min,
            other => bail!("reduction \"{other}\""),
        };
        Ok(Self { reduction })
    }
}

impl Kernel for ScatterNd {
    fn name(&self) -> &'static str {
        "ScatterND"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let (data, updates) = (required(inputs, 0)?, required(inputs, 2)?);
        ensure!(data.dtype == updates.dtype, "updates of {:?} to {:?}", updates.dtype, data.dtype);
        concrete(&data.shape)?;
        Ok(tvec![Fact::new(data.dtype, data.shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let (data, indices, updates) = (required(inputs, 0)?, required(inputs, 1)?, required(inputs, 2)?);
        let (places, len) = places(data.shape(), indices, 0)?;
        ensure!(updates.len() == places.len() * len, "updates of shape {:?}", updates.shape());
        let mut y = data.clone();
        macro_rules! typed {
            ($($name:ident $t:ty, $add:expr, $mul:expr;)*) => {
                match y.datum_type() {
                    $(DatumType::$name => {
                        let f = |a: $t, b: $t| match self.reduction {
                            Reduction::None => b,
                            Reduction::Add => $add(a, b),
                            Reduction::Mul => $mul(a, b),
                            Reduction::Max => if b > a { b } else { a },
                            Reduction::Min => if b < a { b } else { a },
                        };
                        write(&mut y, updates, &places, len, f)?
                    })*
                    DatumType::Bool if self.reduction == Reduction::None => {
                        write(&mut y, updates, &places, len, |_: bool, b| b)?
                    }
                    other => bail!("ScatterND of {other:?}"),
                }
            };
        }
        typed!(
            F32 f32, |a, b| a + b, |a, b| a * b;
            F64 f64, |a, b| a + b, |a, b| a * b;
            I8 i8, i8::wrapping_add, i8::wrapping_mul;
            I16 i16, i16::wrapping_add, i16::wrapping_mul;
            I32 i32, i32::wrapping_add, i32::wrapping_mul;
            I64 i64, i64::wrapping_add, i64::wrapping_mul;
            U8 u8, u8::wrapping_add, u8::wrapping_mul;
            U16 u16, u16::wrapping_add, u16::wrapping_mul;
            U32 u32, u32::wrapping_add, u32::wrapping_mul;
            U64 u64, u64::wrapping_add, u64::wrapping_mul;
        );
        Ok(tvec![y])
    }
}

/// Each update after the other.
fn write<T: Datum + Copy>(
    y: &mut Tensor,
    updates: &Tensor,
    places: &[usize],
    len: usize,
    f: impl Fn(T, T) -> T,
) -> TractResult<()> {
    let updates = slice::<T>(updates)?;
    let mut view = y.try_as_plain_ram_mut()?;
    let y = view.as_slice_mut::<T>()?;
    for (k, &place) in places.iter().enumerate() {
        let line = &updates[k * len..][..len];
        y[place..place + len].iter_mut().zip(line).for_each(|(y, &u)| *y = f(*y, u));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_indices_count_from_the_end() {
        let data = tensor2(&[[0i32, 1], [2, 3]]);
        let run =
            |indices: &Tensor, batch| GatherNd { batch }.eval(&[Some(&data), Some(indices)]).map(|y| y[0].clone());
        assert_eq!(run(&tensor2(&[[-1i64], [0]]), 0).unwrap(), tensor2(&[[2i32, 3], [0, 1]]));
        assert_eq!(run(&tensor2(&[[-1i64], [0]]), 1).unwrap(), tensor1(&[1i32, 2]));
        assert_eq!(run(&tensor1(&[1i64, -2]), 0).unwrap(), tensor0(2i32));
        assert!(run(&tensor2(&[[2i64]]), 0).is_err() && run(&tensor2(&[[i64::MIN]]), 0).is_err());
        assert!(run(&tensor2(&[[0i64, 0, 0]]), 0).is_err() && run(&tensor0(0i64), 0).is_err());
    }

    #[test]
    fn updates_add_up() {
        let data = tensor2(&[[0i32, 1], [2, 3]]);
        let run = |reduction, indices: &Tensor, updates: &Tensor| {
            ScatterNd { reduction }.eval(&[Some(&data), Some(indices), Some(updates)]).map(|y| y[0].clone())
        };
        let (twice, updates) = (tensor2(&[[-1i64], [1]]), tensor2(&[[10i32, 20], [i32::MAX, 1]]));
        let sum = run(Reduction::Add, &twice, &updates).unwrap();
        assert_eq!(sum, tensor2(&[[0i32, 1], [12i32.wrapping_add(i32::MAX), 24]]));
        assert_eq!(run(Reduction::Min, &twice, &updates).unwrap(), tensor2(&[[0i32, 1], [2, 1]]));
        assert!(run(Reduction::None, &twice, &tensor1(&[1i32])).is_err());
    }
}
