//! From integer accumulators to quantized results.

use super::super::custom::{Fact, Kernel};
use super::layout::{Quantized, limit, optional, required, round_even, spread};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `y = saturate(round_half_even(f32(acc + bias) * (a_scale * b_scale / y_scale)) + y_zero_point)`, in ONNX Runtime's order of
/// operations (MlasRequantizeOutput), so that the integer operators lowered to it give the same integers.
///
/// Inputs: `acc` (f32 or f64 that hold integers), `high` (absent, or the accumulator of the weights' upper part: the sum
/// is `16 * high + acc`), `bias` (absent or int32 along `axis`), `a_scale` (one, or one per row), `b_scale` (one, or one
/// along `axis`), `y_scale` and `y_zero_point` (absent: the output is f32).
#[derive(Debug)]
pub(in crate::runtime) struct Requantize {
    axis: i64,
}

/// Slots of the inputs.
const HIGH: usize = 1;
const BIAS: usize = 2;
const A_SCALE: usize = 3;
const B_SCALE: usize = 4;
const Y_SCALE: usize = 5;
const Y_ZERO: usize = 6;

impl Requantize {
    /// What the upper part of a split weight counts.
    pub(in crate::runtime) const SPLIT: i32 = 16;

    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        Ok(Self { axis: node.get_attr("axis")? })
    }
}

impl Kernel for Requantize {
    fn name(&self) -> &'static str {
        super::REQUANTIZE
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let dtype = match optional(inputs, Y_SCALE) {
            None => DatumType::F32,
            Some(_) => optional(inputs, Y_ZERO).map_or(DatumType::U8, |z| z.dtype),
        };
        Ok(tvec![Fact::new(dtype, required(inputs, 0)?.shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let acc = required(inputs, 0)?;
        let job = Job::new(self.axis, acc.shape(), inputs)?;
        let sums = sums(acc, optional(inputs, HIGH))?;
        let y = match (optional(inputs, Y_SCALE), optional(inputs, Y_ZERO).map(|z| z.datum_type())) {
            (None, _) => job.run(acc.shape(), &sums, |x| x),
            (_, None | Some(DatumType::U8)) => job.run(acc.shape(), &sums, saturate::<u8>(job.zero)),
            (_, Some(DatumType::I8)) => job.run(acc.shape(), &sums, saturate::<i8>(job.zero)),
            (_, Some(DatumType::U16)) => job.run(acc.shape(), &sums, saturate::<u16>(job.zero)),
            (_, Some(DatumType::I16)) => job.run(acc.shape(), &sums, saturate::<i16>(job.zero)),
            (_, Some(other)) => bail!("requantizing to {other:?}"),
        };
        Ok(tvec![y?])
    }
}

/// The integer accumulators: f32 as they are where they are exact, else int32.
enum Sums<'t> {
    Float(&'t [f32]),
    Int(Vec<i32>),
}

fn sums<'t>(acc: &'t Tensor, high: Option<&Tensor>) -> TractResult<Sums<'t>> {
    if let Some(high) = high {
        let (high, acc) = (high.try_as_plain_ram()?, acc.try_as_plain_ram()?);
        let pairs = high.as_slice::<f32>()?.iter().zip(acc.as_slice::<f32>()?);
        return Ok(Sums::Int(
            pairs.map(|(&h, &l)| Requantize::SPLIT.wrapping_mul(h as i32).wrapping_add(l as i32)).collect(),
        ));
    }
    let view = acc.try_as_plain_ram()?;
    if acc.datum_type() == DatumType::F64 {
        // Sums beyond int32 wrap, as they do in integer kernels.
        return Ok(Sums::Int(view.as_slice::<f64>()?.iter().map(|&x| x as i64 as i32).collect()));
    }
    // The view ends here; the slice lives as long as the tensor.
    Ok(Sums::Float(acc.to_plain_array_view::<f32>()?.to_slice().context("accumulators are not contiguous")?))
}

fn saturate<T: Quantized>(zero: i32) -> impl Fn(f32) -> T + Copy {
    let (lo, hi) = ((T::LOW - zero) as f32, (T::HIGH - zero) as f32);
    move |x| T::from_i32(round_even(limit(x, lo, hi)) + zero)
}

/// Multipliers and biases, laid out over the output.
struct Job {
    /// Elements behind one index of `axis`.
    inner: usize,
    /// Length of `axis`.
    channels: usize,
    bias: Option<Vec<i32>>,
    b: Vec<f32>,
    /// One per row, where rows have scales of their own.
    a: Vec<f32>,
    y_scale: f32,
    zero: i32,
}

impl Job {
    fn new(axis: i64, shape: &[usize], inputs: &[Option<&Tensor>]) -> TractResult<Self> {
        let rank = shape.len() as i64;
        let axis = if axis < 0 { axis + rank } else { axis };
        // A vector times a matrix (or the reverse) may end in a result without that axis.
        let (channels, inner) = match usize::try_from(axis).ok().filter(|&a| a < shape.len()) {
            Some(axis) => (shape[axis], shape[axis + 1..].iter().product()),
            None => (1, 1),
        };
        let floats = |slot| -> TractResult<Vec<f32>> {
            Ok(required(inputs, slot)?.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
        };
        let single = |slot, default: f32| -> TractResult<f32> {
            let Some(t) = optional(inputs, slot) else { return Ok(default) };
            ensure!(t.len() == 1, "the output's scale and zero point must be single numbers");
            t.cast_to_scalar::<f32>()
        };
        let bias = optional(inputs, BIAS);
        let bias = bias.map(|t| -> TractResult<Vec<i32>> {
            spread(t.cast_to::<i32>()?.try_as_plain_ram()?.as_slice::<i32>()?, channels)
        });
        let a = floats(A_SCALE)?;
        ensure!(a.len() == 1 || inner == 1, "scales per row with an inner axis");
        let b = spread(&floats(B_SCALE)?, channels)?;
        let zero = single(Y_ZERO, 0.0)? as i32;
        Ok(Self { inner, channels, bias: bias.transpose()?, b, a, y_scale: single(Y_SCALE, 1.0)?, zero })
    }

    fn run<T: Datum + Copy>(
        &self,
        shape: &[usize],
        sums: &Sums,
        finish: impl Fn(f32) -> T + Copy,
    ) -> TractResult<Tensor> {
        let mut out = Tensor::zero_dt(T::datum_type(), shape)?;
        let mut view = out.try_as_plain_ram_mut()?;
        let to = view.as_slice_mut::<T>()?;
        if to.is_empty() {
            return Ok(out);
        }
        let row = self.channels * self.inner;
        let rows = shape.len().checked_sub(2).map_or(1, |k| shape[k]).max(1);
        ensure!(self.a.len() == 1 || self.a.len() == rows, "{} row scales for {rows} rows", self.a.len());
        let mut multipliers = self.multipliers(self.a[0]);
        for (k, to) in to.chunks_exact_mut(row).enumerate() {
            if self.a.len() > 1 {
                multipliers = self.multipliers(self.a[k % rows]);
            }
            let start = k * row;
            match sums {
                Sums::Float(acc) => self.row(to, &acc[start..start + row], &multipliers, finish),
                Sums::Int(acc) => self.row(to, &acc[start..start + row], &multipliers, finish),
            }
        }
        Ok(out)
    }

    fn multipliers(&self, a: f32) -> Vec<f32> {
        self.b.iter().map(|b| a * b / self.y_scale).collect()
    }

    /// All channels of one sample, or the columns of one row.
    fn row<S: Sum, T>(&self, to: &mut [T], acc: &[S], multipliers: &[f32], finish: impl Fn(f32) -> T + Copy) {
        match &self.bias {
            None if self.inner == 1 => {
                let pairs = to.iter_mut().zip(acc).zip(multipliers);
                pairs.for_each(|((y, &x), m)| *y = finish(x.float() * m));
            }
            Some(bias) if self.inner == 1 => {
                let pairs = to.iter_mut().zip(acc).zip(multipliers).zip(bias);
                pairs.for_each(|(((y, &x), m), &b)| *y = finish(x.plus(b) * m));
            }
            bias => {
                let stretches = to.chunks_exact_mut(self.inner).zip(acc.chunks_exact(self.inner)).zip(multipliers);
                for (c, ((to, acc), m)) in stretches.enumerate() {
                    let pairs = to.iter_mut().zip(acc);
                    match bias {
                        None => pairs.for_each(|(y, &x)| *y = finish(x.float() * m)),
                        Some(bias) => pairs.for_each(|(y, &x)| *y = finish(x.plus(bias[c]) * m)),
                    }
                }
            }
        }
    }
}

/// An accumulator.
trait Sum: Copy {
    /// As f32.
    fn float(self) -> f32;
    /// The int32 sum with a bias, as f32.
    fn plus(self, bias: i32) -> f32;
}

impl Sum for f32 {
    #[inline(always)]
    fn float(self) -> f32 {
        self
    }

    #[inline(always)]
    fn plus(self, bias: i32) -> f32 {
        (self as i32).wrapping_add(bias) as f32
    }
}

impl Sum for i32 {
    #[inline(always)]
    fn float(self) -> f32 {
        self as f32
    }

    #[inline(always)]
    fn plus(self, bias: i32) -> f32 {
        self.wrapping_add(bias) as f32
    }
}
