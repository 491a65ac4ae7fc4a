//! TensorScatter.

use super::super::custom::{Fact, Kernel};
use super::common::{axis_of, i64s, int, text};
use super::layout::{optional, required};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `TensorScatter` (specification: version 24): writes an update into a cache, from a place on that each sample has.
#[derive(Debug)]
pub(super) struct TensorScatter {
    axis: i64,
    circular: bool,
}

impl TensorScatter {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let circular = match &*text(node, "mode", "linear")? {
            "linear" => false,
            "circular" => true,
            other => bail!("mode \"{other}\""),
        };
        Ok(Self { axis: int(node, "axis", -2)?, circular })
    }
}

impl Kernel for TensorScatter {
    fn name(&self) -> &'static str {
        "TensorScatter"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        Ok(tvec![required(inputs, 0)?])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let (cache, update) = (required(inputs, 0)?, required(inputs, 1)?);
        let axis = axis_of(self.axis, cache.rank())?;
        ensure!(axis > 0 && update.datum_type() == cache.datum_type(), "axis {axis}, {:?}", update.datum_type());
        ensure!(cache.datum_type().is_copy(), "a cache of {:?}", cache.datum_type());
        let (shape, length) = (cache.shape(), update.shape().get(axis).copied().unwrap_or(0));
        let same =
            update.rank() == cache.rank() && (0..shape.len()).all(|k| k == axis || shape[k] == update.shape()[k]);
        ensure!(same && length <= shape[axis], "an update of shape {:?} for {shape:?}", update.shape());
        let starts = match optional(inputs, 2) {
            Some(starts) => i64s(starts)?,
            None => vec![0; shape[0]],
        };
        ensure!(starts.len() == shape[0], "{} places for {} samples", starts.len(), shape[0]);
        let mut y = cache.clone();
        let size = cache.datum_type().size_of();
        let line = shape[axis + 1..].iter().product::<usize>() * size;
        let outer: usize = shape[..axis].iter().product();
        let per_sample = shape[1..axis].iter().product::<usize>();
        let (from, to) = (update.as_bytes(), y.as_bytes_mut());
        for o in 0..outer {
            let start = usize::try_from(starts[o / per_sample.max(1)])?;
            for s in 0..length {
                let place = start.checked_add(s).context("a place in the cache")?;
                let place = if self.circular { place % shape[axis] } else { place };
                ensure!(place < shape[axis], "place {place} of {}", shape[axis]);
                let target = (o * shape[axis] + place) * line;
                to[target..target + line].copy_from_slice(&from[(o * length + s) * line..][..line]);
            }
        }
        Ok(tvec![y])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_circular_cache_wraps() {
        let cache = Tensor::zero::<i32>(&[2, 3, 1]).unwrap();
        let update = Tensor::from_shape(&[2, 2, 1], &[1i32, 2, 3, 4]).unwrap();
        let run = |circular, places: &[i64]| {
            let scatter = TensorScatter { axis: -2, circular };
            scatter.eval(&[Some(&cache), Some(&update), Some(&tensor1(places))]).map(|y| y[0].clone())
        };
        let want = Tensor::from_shape(&[2, 3, 1], &[2i32, 0, 1, 0, 3, 4]).unwrap();
        assert_eq!(run(true, &[2, 1]).unwrap(), want);
        assert!(run(false, &[2, 1]).is_err() && run(true, &[-1, 0]).is_err() && run(true, &[0]).is_err());
    }
}
