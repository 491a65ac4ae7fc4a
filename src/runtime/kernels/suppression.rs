//! NonMaxSuppression.

use super::super::custom::{Fact, Kernel};
use super::common::{f32s, flag, i64s};
use super::layout::{optional, required};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `NonMaxSuppression` (specification: versions 10 and 11): the best boxes of each class that do not overlap a better one. Without
/// a number of boxes there are none; tract takes all.
#[derive(Debug)]
pub(super) struct NonMaxSuppression {
    centers: bool,
    /// How many are selected.
    selected: Symbol,
}

impl NonMaxSuppression {
    pub(super) fn parse(node: &NodeProto, selected: Symbol) -> TractResult<Self> {
        Ok(Self { centers: flag(node, "center_point_box")?, selected })
    }

    /// Bottom, left, top, right.
    fn corners(&self, b: &[f32]) -> [f32; 4] {
        match self.centers {
            // Center x and y, width, height.
            true => [b[1] - b[3] / 2.0, b[0] - b[2] / 2.0, b[1] + b[3] / 2.0, b[0] + b[2] / 2.0],
            false => [b[0].min(b[2]), b[1].min(b[3]), b[0].max(b[2]), b[1].max(b[3])],
        }
    }
}

fn area([bottom, left, top, right]: [f32; 4]) -> f32 {
    (top - bottom) * (right - left)
}

/// Whether two boxes share more of their union than `most`. Boxes without an area overlap nothing.
fn overlap(a: [f32; 4], b: [f32; 4], most: f32) -> bool {
    let shared = [a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])];
    let apart = shared[2] <= shared[0] || shared[3] <= shared[1];
    let (shared, a, b) = (area(shared), area(a), area(b));
    !(apart || a <= 0.0 || b <= 0.0) && shared / (a + b - shared) > most
}

impl Kernel for NonMaxSuppression {
    fn name(&self) -> &'static str {
        "NonMaxSuppression"
    }

    fn facts(&self, _inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        Ok(tvec![Fact::new(DatumType::I64, tvec![self.selected.to_dim(), 3.to_dim()])])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let (boxes, scores) = (required(inputs, 0)?, required(inputs, 1)?);
        let (&[batch, count, 4], &[same, classes, spatial]) = (boxes.shape(), scores.shape()) else {
            bail!("boxes {:?} and scores {:?}", boxes.shape(), scores.shape());
        };
        ensure!(same == batch && spatial == count, "boxes {:?} and scores {:?}", boxes.shape(), scores.shape());
        let number = |slot| -> TractResult<Option<f32>> {
            let Some(t) = optional(inputs, slot) else { return Ok(None) };
            Ok(Some(*f32s(t)?.first().context("an empty threshold")?))
        };
        let most = match optional(inputs, 2) {
            Some(t) => usize::try_from((*i64s(t)?.first().context("an empty number of boxes")?).max(0))?,
            None => 0,
        };
        let (overlapping, least) = (number(3)?.unwrap_or(0.0), number(4)?);
        ensure!((0.0..=1.0).contains(&overlapping), "iou_threshold {overlapping}");
        let (boxes, scores) = (f32s(boxes)?, f32s(scores)?);
        let mut found: Vec<i64> = vec![];
        for line in 0..batch * classes {
            let (b, c) = (line / classes, line % classes);
            let scores = &scores[line * count..][..count];
            let corners = |k: usize| self.corners(&boxes[(b * count + k) * 4..][..4]);
            let mut order: Vec<usize> = (0..count).filter(|&k| least.is_none_or(|least| scores[k] > least)).collect();
            // Equal scores stay in order.
            order.sort_by(|&i, &j| scores[j].total_cmp(&scores[i]));
            let mut kept: Vec<[f32; 4]> = vec![];
            for k in order {
                if kept.len() >= most {
                    break;
                }
                let corners = corners(k);
                if kept.iter().all(|&other| !overlap(corners, other, overlapping)) {
                    kept.push(corners);
                    found.extend([b as i64, c as i64, k as i64]);
                }
            }
        }
        Ok(tvec![Tensor::from_shape(&[found.len() / 3, 3], &found)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_first_and_no_number_means_none() {
        let op = NonMaxSuppression { centers: false, selected: SymbolScope::default().sym("selected") };
        // The corners may come in any order; the third box lies elsewhere.
        let boxes = [0f32, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.1, 5.0, 5.0, 6.0, 6.0];
        let boxes = Tensor::from_shape(&[1, 3, 4], &boxes).unwrap();
        let scores = Tensor::from_shape(&[1, 1, 3], &[0.5f32, 0.5, 0.1]).unwrap();
        let (most, iou) = (tensor0(9i64), tensor0(0.5f32));
        let found = op.eval(&[Some(&boxes), Some(&scores), Some(&most), Some(&iou)]).unwrap();
        assert_eq!(found[0], tensor2(&[[0i64, 0, 0], [0, 0, 2]]));
        assert_eq!(op.eval(&[Some(&boxes), Some(&scores)]).unwrap()[0].shape(), &[0, 3]);
        let least = tensor0(0.1f32);
        let found = op.eval(&[Some(&boxes), Some(&scores), Some(&most), Some(&iou), Some(&least)]).unwrap();
        assert_eq!(found[0], tensor2(&[[0i64, 0, 0]]));
    }
}
