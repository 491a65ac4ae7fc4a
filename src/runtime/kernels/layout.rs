//! How scales and zero points spread over a tensor, and rounding.

use tract_onnx::tract_hir::internal::*;

/// 1.5 * 2^23: adding and subtracting it rounds an f32 below 2^22 to the nearest integer, ties to even, in two vector
/// instructions (`round_ties_even` is a function call on a baseline x86-64).
const MAGIC: f32 = 12_582_912.0;

/// The integer nearest to `x`, ties to even; `|x| < 2^22`.
#[inline(always)]
pub(super) fn round_even(x: f32) -> i32 {
    (x + MAGIC).to_bits() as i32 - MAGIC.to_bits() as i32
}

/// `x` within `lo..=hi`, and `lo` for NaN. Comparisons instead of `clamp`, so that loops vectorize.
#[inline(always)]
pub(super) fn limit(x: f32, lo: f32, hi: f32) -> f32 {
    let x = if x > lo { x } else { lo };
    if x < hi { x } else { hi }
}

/// An integer that quantized values are stored as.
pub(super) trait Quantized: Datum + Copy {
    const LOW: i32;
    const HIGH: i32;
    fn from_i32(x: i32) -> Self;
    fn to_i32(self) -> i32;
}

macro_rules! quantized {
    ($($t:ty),*) => { $(impl Quantized for $t {
        const LOW: i32 = <$t>::MIN as i32;
        const HIGH: i32 = <$t>::MAX as i32;
        #[inline(always)]
        fn from_i32(x: i32) -> Self { x as $t }
        #[inline(always)]
        fn to_i32(self) -> i32 { self as i32 }
    })* };
}
quantized!(u8, i8, u16, i16, i32);

/// One stretch of consecutive elements, and the parameters that belong to it.
struct Run {
    /// Elements.
    elements: std::ops::Range<usize>,
    /// Its one parameter, or the first of as many as it has elements.
    first: usize,
}

/// Parameters over a tensor: one for all, one per index of an axis, or one per block of an axis.
#[derive(Debug)]
pub(super) struct Layout {
    outer: usize,
    axis: usize,
    inner: usize,
    /// Elements of the axis that share a parameter; 0 where there is one parameter in all.
    block: usize,
    /// Whether parameters vary along the inner axes too (blocked quantization).
    varied: bool,
}

impl Layout {
    /// For a tensor of shape `shape` and parameters of shape `params`, as QuantizeLinear defines it.
    pub(super) fn new(shape: &[usize], params: &[usize], axis: i64, block: i64) -> TractResult<Self> {
        let one = params.iter().product::<usize>() == 1;
        if one && block == 0 {
            return Ok(Self { outer: 1, axis: 1, inner: shape.iter().product(), block: 0, varied: false });
        }
        let rank = shape.len() as i64;
        let axis = if axis < 0 { axis + rank } else { axis };
        ensure!((0..rank).contains(&axis), "axis {axis} of a tensor of rank {rank}");
        let axis = axis as usize;
        let (outer, inner) = (shape[..axis].iter().product(), shape[axis + 1..].iter().product());
        if block == 0 {
            let len: usize = params.iter().product();
            ensure!(len == shape[axis], "{len} parameters along an axis of {}", shape[axis]);
            return Ok(Self { outer, axis: shape[axis], inner, block: 1, varied: inner == 1 });
        }
        let block = usize::try_from(block)?;
        let mut want: TVec<usize> = shape.into();
        want[axis] = shape[axis].div_ceil(block);
        ensure!(*want == *params, "blocks of {block} need parameters of shape {want:?}, found {params:?}");
        Ok(Self { outer, axis: shape[axis], inner, block, varied: true })
    }

    /// The stretches in order. In a varied layout a stretch has a parameter for each element, else one for all.
    fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        // Per axis with nothing inside: whole rows, whose parameters are the whole vector.
        let row_wise = self.block == 1 && self.varied && self.inner == 1;
        let (steps, len) = if row_wise { (1, self.axis) } else { (self.axis, self.inner) };
        (0..self.outer).flat_map(move |o| {
            (0..steps).map(move |a| {
                let start = (o * steps + a) * len;
                let first = match self.block {
                    0 => 0,
                    1 if row_wise => 0,
                    1 if !self.varied => a,
                    b => (o * self.axis.div_ceil(b) + a / b) * len,
                };
                Run { elements: start..start + len, first }
            })
        })
    }

    /// `to[k] = f(from[k], scale, zero)` with the parameters that belong to each element.
    #[inline(always)]
    pub(super) fn map<A: Copy, B>(
        &self,
        from: &[A],
        to: &mut [B],
        scales: &[f32],
        zeros: &[i32],
        f: impl Fn(A, f32, i32) -> B,
    ) {
        for run in self.runs() {
            let (from, to) = (&from[run.elements.clone()], &mut to[run.elements]);
            if self.varied {
                let (scales, zeros) = (&scales[run.first..][..to.len()], &zeros[run.first..][..to.len()]);
                for (((y, &x), &s), &z) in to.iter_mut().zip(from).zip(scales).zip(zeros) {
                    *y = f(x, s, z);
                }
            } else {
                let (scale, zero) = (scales[run.first], zeros[run.first]);
                for (y, &x) in to.iter_mut().zip(from) {
                    *y = f(x, scale, zero);
                }
            }
        }
    }
}

/// Zero points as i32, as many as there are scales.
pub(super) fn zero_points(zero: Option<&Tensor>, len: usize) -> TractResult<Vec<i32>> {
    let Some(zero) = zero else { return Ok(vec![0; len]) };
    let cast = zero.cast_to::<i32>()?;
    spread(cast.try_as_plain_ram()?.as_slice::<i32>()?, len)
}

/// `values`, a single one repeated `len` times.
pub(super) fn spread<T: Copy>(values: &[T], len: usize) -> TractResult<Vec<T>> {
    match values {
        [one] => Ok(vec![*one; len]),
        _ => {
            ensure!(values.len() == len, "{} parameters where {len} are expected", values.len());
            Ok(values.to_vec())
        }
    }
}

/// The input in `slot`, which the operator requires.
pub(super) fn required<T: Clone>(inputs: &[Option<T>], slot: usize) -> TractResult<T> {
    inputs.get(slot).cloned().flatten().with_context(|| format!("input {slot} is absent"))
}

/// The input in `slot`, if there is one.
pub(super) fn optional<T: Clone>(inputs: &[Option<T>], slot: usize) -> Option<T> {
    inputs.get(slot).cloned().flatten()
}
