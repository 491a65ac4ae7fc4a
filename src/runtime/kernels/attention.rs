//! Attention.

use super::super::custom::{Fact, Kernel};
use super::attention_mask::Bias;
use super::common::{concrete, fact, flag, int, narrowed};
use super::layout::{optional, required};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::tract_ndarray::{Array2, ArrayD, ArrayView2, ArrayView4, Ix4, LinalgScalar, s};
use tract_onnx::tract_hir::internal::tract_num_traits::Float;
use tract_onnx::tract_hir::internal::*;

/// `Attention` (specification: versions 23 to 25), in f32, or in f64 where the queries are: grouped heads, masks, causality,
/// windows, past keys and values, softcap.
#[derive(Debug)]
pub(super) struct Attention {
    pub(super) causal: bool,
    pub(super) left: Option<i64>,
    pub(super) right: Option<i64>,
    heads: Option<(usize, usize)>,
    mode: i64,
    scale: Option<f32>,
    softcap: f32,
}

impl Attention {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let heads = match (int(node, "q_num_heads", 0)?, int(node, "kv_num_heads", 0)?) {
            (0, 0) => None,
            (q, kv) => Some((usize::try_from(q)?, usize::try_from(kv)?)),
        };
        let window = |name| -> TractResult<Option<i64>> {
            let size = int(node, name, -1)?;
            ensure!(size >= -1, "{name} = {size}");
            Ok((size >= 0).then_some(size))
        };
        let mode = int(node, "qk_matmul_output_mode", 0)?;
        ensure!((0..=3).contains(&mode), "qk_matmul_output_mode {mode}");
        let softcap = node.get_attr_opt("softcap")?.unwrap_or(0.0);
        ensure!(softcap >= 0.0, "softcap {softcap}");
        Ok(Self {
            causal: flag(node, "is_causal")?,
            left: window("left_window_size")?,
            right: window("right_window_size")?,
            heads,
            mode,
            scale: node.get_attr_opt("scale")?,
            softcap,
        })
    }

    fn sizes(&self, q: &[usize], k: &[usize], v: &[usize], past: Option<usize>) -> TractResult<Sizes> {
        let (packed, [batch, heads, queries, depth], [_, groups, keys, _], [_, _, _, width]) =
            match (q, k, v, self.heads) {
                (&[b, s, hidden], &[kb, ks, k_hidden], &[vb, vs, v_hidden], Some((h, g))) => {
                    let divides = h > 0 && g > 0 && hidden % h == 0 && k_hidden % g == 0 && v_hidden % g == 0;
                    ensure!(divides, "{h} and {g} heads of {hidden}, {k_hidden} and {v_hidden} columns");
                    ensure!(hidden / h == k_hidden / g && (kb, vb, vs) == (b, b, ks), "shapes {q:?}, {k:?}, {v:?}");
                    (true, [b, h, s, hidden / h], [b, g, ks, hidden / h], [b, g, ks, v_hidden / g])
                }
                (&[b, h, s, d], &[kb, g, ks, kd], &[vb, vg, vs, w], heads) => {
                    ensure!((kb, vb, vg, vs, kd) == (b, b, g, ks, d), "shapes {q:?}, {k:?}, {v:?}");
                    ensure!(heads.is_none_or(|n| n == (h, g)), "{heads:?} heads for shapes {q:?}, {k:?}");
                    (false, [b, h, s, d], [b, g, ks, d], [b, g, ks, w])
                }
                _ => bail!("shapes {q:?}, {k:?}, {v:?} with {:?} heads", self.heads),
            };
        ensure!(groups > 0 && heads % groups == 0, "{heads} heads of queries for {groups} of keys");
        let past = past.unwrap_or(0);
        Ok(Sizes { packed, batch, heads, groups, queries, keys: keys + past, past, depth, width })
    }
}

/// The shapes of one call.
#[derive(Debug)]
pub(super) struct Sizes {
    /// Whether heads lie side by side in the last axis.
    packed: bool,
    pub(super) batch: usize,
    pub(super) heads: usize,
    groups: usize,
    pub(super) queries: usize,
    /// Keys, with those of the past.
    pub(super) keys: usize,
    pub(super) past: usize,
    depth: usize,
    width: usize,
}

impl Sizes {
    fn y(&self) -> TVec<usize> {
        match self.packed {
            true => tvec![self.batch, self.queries, self.heads * self.width],
            false => tvec![self.batch, self.heads, self.queries, self.width],
        }
    }

    fn present(&self, width: usize) -> TVec<usize> {
        tvec![self.batch, self.groups, self.keys, width]
    }

    fn scores(&self) -> TVec<usize> {
        tvec![self.batch, self.heads, self.queries, self.keys]
    }
}

impl Kernel for Attention {
    fn name(&self) -> &'static str {
        "Attention"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let (q, k, v) = (required(inputs, 0)?, required(inputs, 1)?, required(inputs, 2)?);
        let past = optional(inputs, 4).map(|p| concrete(&p.shape)).transpose()?;
        let past = past.map(|p| p.get(2).copied().context("past keys of rank 4")).transpose()?;
        let sizes = self.sizes(&concrete(&q.shape)?, &concrete(&k.shape)?, &concrete(&v.shape)?, past)?;
        Ok(tvec![
            fact(q.dtype, &sizes.y()),
            fact(k.dtype, &sizes.present(sizes.depth)),
            fact(v.dtype, &sizes.present(sizes.width)),
            fact(q.dtype, &sizes.scores()),
        ])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        match required(inputs, 0)?.datum_type() {
            DatumType::F64 => self.compute::<f64>(inputs),
            DatumType::F32 | DatumType::F16 => self.compute::<f32>(inputs),
            other => bail!("attention in {other:?}"),
        }
    }
}

/// `x` as batch, heads, sequence, columns.
fn split<T: Datum>(x: &Tensor, heads: usize) -> TractResult<tract_ndarray::Array4<T>> {
    let x = x.cast_to::<T>()?;
    let x = x.to_plain_array_view::<T>()?;
    if let &[b, s, hidden] = x.shape() {
        let x = x.into_shape_with_order((b, s, heads, hidden / heads))?;
        return Ok(x.permuted_axes([0, 2, 1, 3]).to_owned());
    }
    Ok(x.into_dimensionality::<Ix4>()?.to_owned())
}

/// The past before the present, along the sequence.
fn with_past<T: Datum>(past: Option<&Tensor>, x: tract_ndarray::Array4<T>) -> TractResult<tract_ndarray::Array4<T>> {
    let Some(past) = past else { return Ok(x) };
    let past = past.cast_to::<T>()?;
    let past: ArrayView4<T> = past.to_plain_array_view::<T>()?.into_dimensionality::<Ix4>()?;
    Ok(tract_ndarray::concatenate(tract_ndarray::Axis(2), &[past, x.view()])?)
}

impl Attention {
    fn compute<T: Datum + Float + LinalgScalar>(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let (q, k, v) = (required(inputs, 0)?, required(inputs, 1)?, required(inputs, 2)?);
        let (past_k, past_v) = (optional(inputs, 4), optional(inputs, 5));
        ensure!(past_k.is_some() == past_v.is_some(), "past keys and past values come together");
        let past = past_k.map(|p| p.shape().get(2).copied().context("past keys of rank 4")).transpose()?;
        let sizes = self.sizes(q.shape(), k.shape(), v.shape(), past)?;
        let (dtype, k_type, v_type) = (q.datum_type(), k.datum_type(), v.datum_type());
        // There, ONNX Runtime lets a single query see all that is new, and the specification only the first.
        let single = self.causal && sizes.queries == 1 && sizes.keys > sizes.past + 1 && optional(inputs, 6).is_none();
        ensure!(!single, "a causal query before {} new keys", sizes.keys - sizes.past);
        let bias = Bias::new(self, &sizes, optional(inputs, 3), optional(inputs, 6))?;
        let q = split::<T>(q, sizes.heads)?;
        let k = with_past(past_k, split::<T>(k, sizes.groups)?)?;
        let v = with_past(past_v, split::<T>(v, sizes.groups)?)?;
        ensure!(*k.shape() == *sizes.present(sizes.depth), "keys of shape {:?}", k.shape());
        ensure!(*v.shape() == *sizes.present(sizes.width), "values of shape {:?}", v.shape());
        let mut y = ArrayD::<T>::zeros(&*sizes.y());
        let mut scores = tract_ndarray::Array4::<T>::zeros((sizes.batch, sizes.heads, sizes.queries, sizes.keys));
        let scale = self.scale.map_or(1.0 / (sizes.depth as f64).sqrt(), f64::from);
        let scale = T::from(scale).context("scale")?;
        for b in 0..sizes.batch {
            for h in 0..sizes.heads {
                let g = h / (sizes.heads / sizes.groups);
                let row_bias = |i: usize, j: usize| bias.at([b, h, i, j]);
                let (k, v) = (k.slice(s![b, g, .., ..]), v.slice(s![b, g, .., ..]));
                let (kept, out) = self.head(q.slice(s![b, h, .., ..]), k, v, scale, row_bias)?;
                scores.slice_mut(s![b, h, .., ..]).assign(&kept);
                match sizes.packed {
                    true => y.slice_mut(s![b, .., h * sizes.width..(h + 1) * sizes.width]).assign(&out),
                    false => y.slice_mut(s![b, h, .., ..]).assign(&out),
                }
            }
        }
        let tensor = |dt: DatumType, t: Tensor| Ok::<_, TractError>(t.cast_to_dt(dt)?.into_owned());
        Ok(tvec![
            tensor(dtype, y.into())?,
            tensor(k_type, k.into())?,
            tensor(v_type, v.into())?,
            narrowed(dtype, &sizes.scores(), &scores.into_iter().collect::<Vec<T>>())?,
        ])
    }

    /// One head: the scores that the node may return, and the output.
    fn head<T: Float + LinalgScalar>(
        &self,
        q: ArrayView2<T>,
        k: ArrayView2<T>,
        v: ArrayView2<T>,
        scale: T,
        bias: impl Fn(usize, usize) -> f64,
    ) -> TractResult<(Array2<T>, Array2<T>)> {
        let mut scores = q.dot(&k.t());
        scores.mapv_inplace(|x| x * scale);
        let mut kept = (self.mode == 0).then(|| scores.clone());
        if self.softcap > 0.0 {
            let cap = T::from(self.softcap).context("softcap")?;
            scores.mapv_inplace(|x| cap * (x / cap).tanh());
        }
        kept = kept.or_else(|| (self.mode == 1).then(|| scores.clone()));
        for (i, mut row) in scores.outer_iter_mut().enumerate() {
            let biases: Vec<f64> = (0..row.len()).map(|j| bias(i, j)).collect();
            // A query that may attend to nothing yields zeros, whatever its scores.
            let blind = biases.iter().all(|b| *b == f64::NEG_INFINITY);
            for (x, b) in row.iter_mut().zip(biases) {
                *x = *x + T::from(b).context("mask")?;
            }
            if self.mode == 2 {
                kept.get_or_insert_with(|| Array2::zeros((q.nrows(), k.nrows()))).row_mut(i).assign(&row);
            }
            if blind {
                row.fill(T::zero());
            } else {
                softmax(row.iter_mut());
            }
        }
        let y = scores.dot(&v);
        Ok((kept.unwrap_or(scores), y))
    }
}

/// In place.
fn softmax<'a, T: Float + 'a>(row: impl ExactSizeIterator<Item = &'a mut T>) {
    let mut row: Vec<&mut T> = row.collect();
    let max = row.iter().map(|x| **x).fold(T::neg_infinity(), |a, b| if b > a || b.is_nan() { b } else { a });
    let mut sum = T::zero();
    for x in &mut row {
        **x = (**x - max).exp();
        sum = sum + **x;
    }
    row.into_iter().for_each(|x| *x = *x / sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Attention =
        Attention { causal: false, left: None, right: None, heads: None, mode: 3, scale: Some(1.0), softcap: 0.0 };

    fn ones(shape: &[usize]) -> Tensor {
        Tensor::from_shape(shape, &vec![1f32; shape.iter().product()]).unwrap()
    }

    #[test]
    fn equal_keys_share_the_attention() {
        let (q, k) = (ones(&[1, 2, 1, 4]), ones(&[1, 1, 3, 4]));
        let v = Tensor::from_shape(&[1, 1, 3, 1], &[1f32, 2.0, 6.0]).unwrap();
        let out = PLAIN.eval(&[Some(&q), Some(&k), Some(&v)]).unwrap();
        out[0].close_enough(&Tensor::from_shape(&[1, 2, 1, 1], &[3f32, 3.0]).unwrap(), Approximation::Close).unwrap();
        let causal = Attention { causal: true, ..PLAIN };
        assert!(causal.eval(&[Some(&q), Some(&k), Some(&v)]).is_err());
        let q = ones(&[1, 1, 2, 4]);
        let out = causal.eval(&[Some(&q), Some(&k), Some(&v)]).unwrap();
        assert_eq!(out[0], Tensor::from_shape(&[1, 1, 2, 1], &[1f32, 1.5]).unwrap());
    }

    #[test]
    fn a_row_that_sees_nothing_is_zero_even_with_nan_scores() {
        let q = Tensor::from_shape(&[1, 1, 1, 1], &[f32::INFINITY]).unwrap();
        let mask = Tensor::from_shape(&[1, 2], &[false, false]).unwrap();
        let out = PLAIN.eval(&[Some(&q), Some(&ones(&[1, 1, 2, 1])), Some(&ones(&[1, 1, 2, 1])), Some(&mask)]).unwrap();
        assert_eq!(out[0], Tensor::from_shape(&[1, 1, 1, 1], &[0f32]).unwrap());
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let x = ones(&[1, 3, 1, 4]);
        assert!(PLAIN.eval(&[Some(&x), Some(&ones(&[1, 2, 1, 4])), Some(&ones(&[1, 2, 1, 4]))]).is_err());
        assert!(PLAIN.eval(&[Some(&x), Some(&ones(&[1, 3, 1, 5])), Some(&x)]).is_err());
        let packed = ones(&[1, 3, 4]);
        assert!(PLAIN.eval(&[Some(&packed), Some(&packed), Some(&packed)]).is_err());
        let none = ones(&[1, 1, 0, 4]);
        assert_eq!(PLAIN.eval(&[Some(&none), Some(&none), Some(&none)]).unwrap()[0].shape(), &[1, 1, 0, 4]);
    }
}
