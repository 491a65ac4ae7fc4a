//! Unique.

use super::super::custom::{Fact, Kernel};
use super::common::{axis_of, int, pick, slice, strides};
use super::layout::required;
use std::cmp::Ordering;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `Unique` (specification: version 11): the different elements, or slices along an axis, the place where each is first, which
/// of them each element is, and how often each is there.
#[derive(Debug)]
pub(super) struct Unique {
    axis: Option<i64>,
    sorted: bool,
    /// How many there are.
    found: Symbol,
}

impl Unique {
    pub(super) fn parse(node: &NodeProto, found: Symbol) -> TractResult<Self> {
        Ok(Self { axis: node.get_attr_opt("axis")?, sorted: int(node, "sorted", 1)? != 0, found })
    }
}

/// Items in groups of equal ones: the groups in order, each with its first item first.
fn groups<T: Datum + PartialOrd>(
    x: &[T],
    count: usize,
    item: impl Fn(usize) -> Vec<usize>,
) -> TractResult<Vec<Vec<usize>>> {
    ensure!(x.iter().all(|v| v.partial_cmp(v).is_some()), "NaN is not equal to itself");
    let items: Vec<Vec<usize>> = (0..count).map(item).collect();
    let compare = |&a: &usize, &b: &usize| {
        let pairs = items[a].iter().zip(&items[b]).map(|(&a, &b)| x[a].partial_cmp(&x[b]).unwrap_or(Ordering::Equal));
        pairs.into_iter().find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    };
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(compare);
    Ok(order.chunk_by(|a, b| compare(a, b).is_eq()).map(<[usize]>::to_vec).collect())
}

impl Kernel for Unique {
    fn name(&self) -> &'static str {
        "Unique"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let x = required(inputs, 0)?;
        let found = self.found.to_dim();
        let (shape, items) = match self.axis {
            Some(axis) => {
                let axis = axis_of(axis, x.shape.len())?;
                let mut shape = x.shape.clone();
                shape[axis] = found.clone();
                (shape, x.shape[axis].clone())
            }
            None => (tvec![found.clone()], x.shape.iter().product()),
        };
        let places = Fact::new(DatumType::I64, tvec![found]);
        Ok(tvec![Fact::new(x.dtype, shape), places.clone(), Fact::new(DatumType::I64, tvec![items]), places])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        // Without an axis, every element is an item of its own.
        let (shape, axis): (TVec<usize>, usize) = match self.axis {
            Some(axis) => (x.shape().into(), axis_of(axis, x.rank())?),
            None => (tvec![x.len()], 0),
        };
        let (count, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
        let outer: usize = shape[..axis].iter().product();
        let item = |k: usize| -> Vec<usize> {
            (0..outer).flat_map(|o| (0..inner).map(move |i| (o * count + k) * inner + i)).collect()
        };
        macro_rules! typed {
            ($($name:ident $t:ty),*) => {
                match x.datum_type() {
                    $(DatumType::$name => groups(slice::<$t>(x)?, count, item),)*
                    other => bail!("Unique of {other:?}"),
                }
            };
        }
        let mut groups = typed!(
            F32 f32, F64 f64, F16 f16, Bool bool, U8 u8, U16 u16, U32 u32, U64 u64, I8 i8, I16 i16, I32 i32, I64 i64
        )?;
        if !self.sorted {
            groups.sort_by_key(|g| g[0]);
        }
        let firsts: Vec<usize> = groups.iter().map(|g| g[0]).collect();
        let counts: Vec<i64> = groups.iter().map(|g| g.len() as i64).collect();
        let mut inverse = vec![0i64; count];
        for (k, group) in groups.iter().enumerate() {
            group.iter().for_each(|&i| inverse[i] = k as i64);
        }
        let steps = strides(&shape);
        let mut kept = shape.clone();
        kept[axis] = firsts.len();
        let y = pick(x, &kept, None, |index| {
            let at = |k: usize| if k == axis { firsts[index[k]] } else { index[k] };
            Some((0..index.len()).map(|k| at(k) * steps[k]).sum())
        })?;
        let firsts: Vec<i64> = firsts.into_iter().map(|k| k as i64).collect();
        Ok(tvec![y, tensor1(&firsts), tensor1(&inverse), tensor1(&counts)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(x: &Tensor, axis: Option<i64>, sorted: bool) -> TractResult<TVec<Tensor>> {
        Unique { axis, sorted, found: SymbolScope::default().sym("found") }.eval(&[Some(x)])
    }

    #[test]
    fn first_places_and_counts() {
        let x = tensor1(&[3i32, 1, 3, 2]);
        let y = run(&x, None, true).unwrap();
        assert_eq!((&y[0], &y[1]), (&tensor1(&[1i32, 2, 3]), &tensor1(&[1i64, 3, 0])));
        assert_eq!((&y[2], &y[3]), (&tensor1(&[2i64, 0, 2, 1]), &tensor1(&[1i64, 1, 2])));
        let y = run(&x, None, false).unwrap();
        assert_eq!((&y[0], &y[1]), (&tensor1(&[3i32, 1, 2]), &tensor1(&[0i64, 1, 3])));
    }

    #[test]
    fn slices_and_nothing() {
        let x = tensor2(&[[1u8, 1, 0], [2, 2, 9]]);
        assert_eq!(run(&x, Some(-1), true).unwrap()[0], tensor2(&[[0u8, 1], [9, 2]]));
        assert_eq!(run(&Tensor::zero::<f32>(&[0]).unwrap(), None, true).unwrap()[0].shape(), &[0]);
        assert!(run(&tensor1(&[f32::NAN]), None, true).is_err());
    }
}
