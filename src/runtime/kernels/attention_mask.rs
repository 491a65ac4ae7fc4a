//! What attention adds to its scores.

use super::attention::{Attention, Sizes};
use super::common::{f64s, i64s, slice, strides};
use tract_onnx::tract_hir::internal::*;

/// The sum of the mask, causality, window and padding: 0 or less than 0 up to minus infinity, which forbids a key.
pub(super) struct Bias {
    mask: Option<Mask>,
    causal: bool,
    left: Option<i64>,
    right: Option<i64>,
    /// Keys that come before the first query, by batch.
    offsets: Vec<i64>,
    /// Keys that are not padding, by batch.
    valid: Option<Vec<i64>>,
}

/// A mask, spread over batch, heads, queries and keys.
struct Mask {
    values: Vec<f64>,
    /// Elements to skip for one step along each axis: 0 where the mask repeats.
    steps: [usize; 4],
    /// Keys that the mask covers; those after them are forbidden.
    keys: usize,
}

impl Bias {
    pub(super) fn new(
        attention: &Attention,
        sizes: &Sizes,
        mask: Option<&Tensor>,
        valid: Option<&Tensor>,
    ) -> TractResult<Self> {
        let valid = valid.map(i64s).transpose()?;
        let offsets = match &valid {
            Some(valid) => {
                ensure!(valid.len() == sizes.batch, "{} lengths for {} samples", valid.len(), sizes.batch);
                ensure!(sizes.past == 0, "lengths of a cache beside past keys");
                valid.iter().map(|n| n.saturating_sub(sizes.queries as i64)).collect()
            }
            None => vec![sizes.past as i64; sizes.batch],
        };
        let mask = mask.map(|m| Mask::new(m, sizes)).transpose()?;
        Ok(Self { mask, causal: attention.causal, left: attention.left, right: attention.right, offsets, valid })
    }

    /// For a batch, head, query and key.
    pub(super) fn at(&self, [b, h, i, j]: [usize; 4]) -> f64 {
        // The place of the query among the keys.
        let ahead = j as i64 - self.offsets[b].saturating_add(i as i64);
        let forbidden = self.causal && ahead > 0
            || self.left.is_some_and(|n| ahead < -n)
            || self.right.is_some_and(|n| ahead > n)
            || self.valid.as_ref().is_some_and(|valid| j as i64 >= valid[b]);
        let mask = self.mask.as_ref().map_or(0.0, |m| m.at([b, h, i, j]));
        if forbidden { f64::NEG_INFINITY } else { mask }
    }
}

impl Mask {
    fn new(mask: &Tensor, sizes: &Sizes) -> TractResult<Self> {
        let values = match mask.datum_type() {
            DatumType::Bool => {
                slice::<bool>(mask)?.iter().map(|&seen| if seen { 0.0 } else { f64::NEG_INFINITY }).collect()
            }
            _ => f64s(mask)?,
        };
        let shape = mask.shape();
        ensure!((1..=4).contains(&shape.len()), "a mask of rank {}", shape.len());
        let keys = shape[shape.len() - 1];
        // A short mask forbids the keys that it lacks; a mask of one key might as well be meant to repeat.
        ensure!(keys != 1 || sizes.keys == 1, "a mask of shape {shape:?} for {} keys", sizes.keys);
        let want = [sizes.batch, sizes.heads, sizes.queries, sizes.keys];
        let mut steps = [0; 4];
        for (k, step) in strides(shape).into_iter().enumerate() {
            let axis = 4 - shape.len() + k;
            let fits = shape[k] == 1 || shape[k] == want[axis] || axis == 3 && shape[k] <= want[axis];
            ensure!(fits, "a mask of shape {shape:?} for scores of shape {want:?}");
            steps[axis] = if shape[k] == 1 { 0 } else { step };
        }
        Ok(Self { values, steps, keys })
    }

    fn at(&self, index: [usize; 4]) -> f64 {
        if index[3] >= self.keys {
            return f64::NEG_INFINITY;
        }
        let flat: usize = index.iter().zip(self.steps).map(|(i, step)| i * step).sum();
        self.values.get(flat).copied().unwrap_or(f64::NAN)
    }
}
