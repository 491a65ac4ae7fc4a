//! Compress.

use super::super::custom::{Fact, Kernel};
use super::common::{axis_of, pick, slice, strides};
use super::layout::required;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `Compress` (specification: versions 9 and 11): the slices, or without an axis the elements, whose condition is true. There
/// may be fewer conditions than slices.
#[derive(Debug)]
pub(super) struct Compress {
    axis: Option<i64>,
    /// How many are kept.
    kept: Symbol,
}

impl Compress {
    pub(super) fn parse(node: &NodeProto, kept: Symbol) -> TractResult<Self> {
        Ok(Self { axis: node.get_attr_opt("axis")?, kept })
    }
}

impl Kernel for Compress {
    fn name(&self) -> &'static str {
        "Compress"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let x = required(inputs, 0)?;
        let kept = match required(inputs, 1)?.value {
            Some(condition) => slice::<bool>(&condition)?.iter().filter(|c| **c).count().to_dim(),
            None => self.kept.to_dim(),
        };
        let mut shape = x.shape;
        match self.axis {
            Some(axis) => {
                let axis = axis_of(axis, shape.len())?;
                shape[axis] = kept;
            }
            None => shape = tvec![kept],
        }
        Ok(tvec![Fact::new(x.dtype, shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        let condition = slice::<bool>(required(inputs, 1)?)?;
        let kept: Vec<usize> = condition.iter().enumerate().filter(|(_, c)| **c).map(|(k, _)| k).collect();
        let Some(axis) = self.axis else {
            ensure!(condition.len() <= x.len(), "{} conditions for {} elements", condition.len(), x.len());
            return Ok(tvec![pick(x, &[kept.len()], None, |index| Some(kept[index[0]]))?]);
        };
        let axis = axis_of(axis, x.rank())?;
        ensure!(condition.len() <= x.shape()[axis], "{} conditions along {:?}", condition.len(), x.shape());
        let (mut shape, steps): (TVec<usize>, _) = (x.shape().into(), strides(x.shape()));
        shape[axis] = kept.len();
        let place = |index: &[usize]| {
            let at = |k: usize| if k == axis { kept[index[k]] } else { index[k] };
            Some((0..index.len()).map(|k| at(k) * steps[k]).sum())
        };
        Ok(tvec![pick(x, &shape, None, place)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_may_be_few_but_not_too_many() {
        let run = |axis, condition: &[bool]| {
            let kept = SymbolScope::default().sym("kept");
            let x = tensor2(&[[1i64, 2], [3, 4], [5, 6]]);
            Compress { axis, kept }.eval(&[Some(&x), Some(&tensor1(condition))]).map(|y| y[0].clone())
        };
        assert_eq!(run(Some(0), &[false, true]).unwrap(), tensor2(&[[3i64, 4]]));
        assert_eq!(run(Some(-1), &[false, true]).unwrap(), tensor2(&[[2i64], [4], [6]]));
        assert_eq!(run(None, &[false, true, false, false, true]).unwrap(), tensor1(&[2i64, 5]));
        assert_eq!(run(Some(1), &[false]).unwrap().shape(), &[3, 0]);
        assert!(run(Some(1), &[true; 3]).is_err() && run(None, &[true; 7]).is_err() && run(Some(2), &[]).is_err());
    }
}
