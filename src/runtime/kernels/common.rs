//! What many kernels need: attributes, axes, elements.

use super::super::custom::Fact;
use super::layout::required;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::broadcast::multi_broadcast;

/// Elements that a shape taken from attributes or from fed values may ask for.
const MOST_ELEMENTS: usize = 1 << 30;

/// An integer attribute.
pub(super) fn int(node: &NodeProto, name: &str, default: i64) -> TractResult<i64> {
    Ok(node.get_attr_opt(name)?.unwrap_or(default))
}

/// An attribute that says yes (not 0) or no.
pub(super) fn flag(node: &NodeProto, name: &str) -> TractResult<bool> {
    Ok(int(node, name, 0)? != 0)
}

/// A list of integers, if the node has it.
pub(super) fn ints(node: &NodeProto, name: &str) -> TractResult<Option<Vec<i64>>> {
    node.get_attr_opt_vec(name)
}

/// A string attribute.
pub(super) fn text(node: &NodeProto, name: &str, default: &str) -> TractResult<String> {
    Ok(node.get_attr_opt::<String>(name)?.unwrap_or_else(|| default.to_string()))
}

/// `axis`, counted from the end where it is negative, as an index below `rank`.
pub(super) fn axis_of(axis: i64, rank: usize) -> TractResult<usize> {
    let positive = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    ensure!((0..rank as i64).contains(&positive), "axis {axis} of a tensor of rank {rank}");
    Ok(positive as usize)
}

/// A shape whose dimensions must be known.
pub(super) fn concrete(shape: &[TDim]) -> TractResult<TVec<usize>> {
    shape.iter().map(|d| Ok(d.to_usize()?)).collect()
}

/// A known shape as tract writes shapes.
pub(super) fn symbolic(shape: &[usize]) -> TVec<TDim> {
    shape.iter().map(|d| d.to_dim()).collect()
}

/// A fact of known shape.
pub(super) fn fact(dtype: DatumType, shape: &[usize]) -> Fact {
    Fact::new(dtype, symbolic(shape))
}

/// The constant in `slot`: what `what` says, which decides a shape.
pub(super) fn constant(inputs: &[Option<Fact>], slot: usize, what: &str) -> TractResult<Arc<Tensor>> {
    required(inputs, slot)?.value.with_context(|| format!("{what} must be constant"))
}

/// Number of elements, which must be reasonable.
pub(super) fn volume(shape: &[usize]) -> TractResult<usize> {
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let count = count.filter(|&n| n <= MOST_ELEMENTS);
    count.with_context(|| format!("a tensor of shape {shape:?} is too large"))
}

/// The elements of a tensor of type `T`.
pub(super) fn slice<T: Datum>(t: &Tensor) -> TractResult<&[T]> {
    t.try_as_plain_ram()?.as_slice::<T>()
}

/// The elements as f64, of a tensor of floating-point numbers.
pub(super) fn f64s(t: &Tensor) -> TractResult<Vec<f64>> {
    ensure!(t.datum_type().is_float(), "floating-point numbers are expected, not {:?}", t.datum_type());
    Ok(slice::<f64>(&*t.cast_to::<f64>()?)?.to_vec())
}

/// The elements as f32, of a tensor of floating-point numbers.
pub(super) fn f32s(t: &Tensor) -> TractResult<Vec<f32>> {
    ensure!(t.datum_type().is_float(), "floating-point numbers are expected, not {:?}", t.datum_type());
    Ok(slice::<f32>(&*t.cast_to::<f32>()?)?.to_vec())
}

/// The elements as i64, of a tensor of integers.
pub(super) fn i64s(t: &Tensor) -> TractResult<Vec<i64>> {
    let dt = t.datum_type();
    ensure!(dt.is_integer() || dt == DatumType::Bool, "integers are expected, not {dt:?}");
    Ok(slice::<i64>(&*t.cast_to::<i64>()?)?.to_vec())
}

/// A tensor of type `dtype` from numbers that were computed in a wider type.
pub(super) fn narrowed<T: Datum + Copy>(dtype: DatumType, shape: &[usize], values: &[T]) -> TractResult<Tensor> {
    let wide = Tensor::from_shape(shape, values)?;
    Ok(wide.cast_to_dt(dtype)?.into_owned())
}

/// Elements to skip for one step along each axis.
pub(super) fn strides(shape: &[usize]) -> TVec<usize> {
    let mut strides: TVec<usize> = tvec![1; shape.len()];
    for k in (1..shape.len()).rev() {
        strides[k - 1] = strides[k] * shape[k];
    }
    strides
}

/// Calls `visit` with every index of `shape`, in order.
pub(super) fn for_each_index(
    shape: &[usize],
    mut visit: impl FnMut(usize, &[usize]) -> TractResult<()>,
) -> TractResult<()> {
    let count: usize = shape.iter().product();
    let mut index: TVec<usize> = tvec![0; shape.len()];
    for flat in 0..count {
        visit(flat, &index)?;
        for k in (0..shape.len()).rev() {
            index[k] += 1;
            if index[k] < shape[k] {
                break;
            }
            index[k] = 0;
        }
    }
    Ok(())
}

/// A tensor of shape `shape` whose elements are elements of `x`, of any type but strings: `from` says which for each index,
/// and `None` leaves the element 0 or what `fill` holds.
pub(super) fn pick(
    x: &Tensor,
    shape: &[usize],
    fill: Option<&Tensor>,
    mut from: impl FnMut(&[usize]) -> Option<usize>,
) -> TractResult<Tensor> {
    let dtype = x.datum_type();
    ensure!(dtype.is_copy(), "moving elements of type {dtype:?}");
    volume(shape)?;
    let size = dtype.size_of();
    let zeros = vec![0u8; size];
    let fill = match fill {
        Some(f) => {
            ensure!(f.datum_type() == dtype && f.len() == 1, "one element of type {dtype:?} fills the rest");
            f.as_bytes()
        }
        None => &zeros,
    };
    let mut y = Tensor::zero_dt(dtype, shape)?;
    let (source, count) = (x.as_bytes(), x.len());
    let target = y.as_bytes_mut();
    for_each_index(shape, |flat, index| {
        let bytes = match from(index) {
            Some(k) => {
                ensure!(k < count, "element {k} of {count}");
                &source[k * size..][..size]
            }
            None => fill,
        };
        target[flat * size..][..size].copy_from_slice(bytes);
        Ok(())
    })?;
    Ok(y)
}

/// `f` of each pair of elements, of shapes that broadcast.
pub(super) fn zip<A: Datum + Copy, B: Datum + Copy>(
    x: &Tensor,
    y: &Tensor,
    f: impl Fn(A, A) -> TractResult<B>,
) -> TractResult<Tensor> {
    let shape: TVec<usize> = multi_broadcast(&[x.shape(), y.shape()])?;
    let (x, y) = (x.to_plain_array_view::<A>()?, y.to_plain_array_view::<A>()?);
    let spread = "shapes that do not broadcast";
    let (x, y) = (x.broadcast(&*shape).context(spread)?, y.broadcast(&*shape).context(spread)?);
    let z: Vec<B> = x.iter().zip(y.iter()).map(|(&a, &b)| f(a, b)).collect::<TractResult<_>>()?;
    Tensor::from_shape(&shape, &z)
}
