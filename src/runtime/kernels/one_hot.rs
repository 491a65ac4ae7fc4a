//! OneHot.

use super::super::custom::{Fact, Kernel};
use super::common::{axis_of, concrete, constant, fact, int, pick, slice, volume};
use super::layout::required;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `OneHot` (specification: versions 9 and 11). An index outside of `-depth..depth` has no hot element; tract panics on it.
#[derive(Debug)]
pub(super) struct OneHot {
    axis: i64,
}

impl OneHot {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        Ok(Self { axis: int(node, "axis", -1)? })
    }

    fn shape(&self, indices: &[usize], depth: &Tensor) -> TractResult<(usize, TVec<usize>)> {
        let [depth] = *whole(depth)? else { bail!("one depth is expected") };
        let axis = axis_of(self.axis, indices.len() + 1)?;
        let mut shape: TVec<usize> = indices.into();
        shape.insert(axis, usize::try_from(depth)?);
        volume(&shape)?;
        Ok((axis, shape))
    }
}

/// Numbers of any type as integers.
fn whole(t: &Tensor) -> TractResult<Vec<i64>> {
    ensure!(t.datum_type().is_number(), "numbers are expected, not {:?}", t.datum_type());
    Ok(slice::<i64>(&*t.cast_to::<i64>()?)?.to_vec())
}

impl Kernel for OneHot {
    fn name(&self) -> &'static str {
        "OneHot"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let (indices, values) = (required(inputs, 0)?, required(inputs, 2)?);
        let (_, shape) = self.shape(&concrete(&indices.shape)?, &*constant(inputs, 1, "the depth")?)?;
        Ok(tvec![fact(values.dtype, &shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let (indices, values) = (required(inputs, 0)?, required(inputs, 2)?);
        let (axis, shape) = self.shape(indices.shape(), required(inputs, 1)?)?;
        ensure!(values.len() == 2, "{} values, not off and on", values.len());
        let depth = shape[axis] as i64;
        let inner: usize = shape[axis + 1..].iter().product();
        let hot: Vec<i64> =
            whole(indices)?.into_iter().map(|i| if i < 0 { i.saturating_add(depth) } else { i }).collect();
        let mut flat = 0;
        let place = |index: &[usize]| {
            let at = flat / (inner * shape[axis]).max(1) * inner + flat % inner.max(1);
            flat += 1;
            Some(usize::from(hot[at] == index[axis] as i64))
        };
        Ok(tvec![pick(values, &shape, None, place)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_out_of_range_are_cold() {
        let run = |axis, indices: &Tensor, depth: i64| {
            OneHot { axis }
                .eval(&[Some(indices), Some(&tensor0(depth)), Some(&tensor1(&[0u8, 7]))])
                .map(|y| y[0].clone())
        };
        let want = tensor2(&[[0u8, 7, 0], [0, 0, 0], [0, 0, 7], [0, 0, 0]]);
        assert_eq!(run(-1, &tensor1(&[1i64, 3, -1, -4]), 3).unwrap(), want);
        assert_eq!(run(0, &tensor1(&[1f32, 0.0]), 2).unwrap(), tensor2(&[[0u8, 7], [7, 0]]));
        assert_eq!(run(0, &tensor1(&[1i64]), 0).unwrap().shape(), &[0, 1]);
        assert!(run(0, &tensor1(&[1i64]), -1).is_err() && run(2, &tensor1(&[1i64]), 1).is_err());
    }
}
