//! The smallest weights become zero.

use super::layers::{SparseLayer, layers};
use super::options::{Block, Goal, Pattern, SparsifyOptions};
use crate::error::{Context, Result};
use crate::ir::{DType, Model, Tensor};
use crate::passes::{Effect, Outcome, Pass, PassContext, Patch};
use std::collections::HashMap;

/// Sets weights of products to zero: the least important ones.
pub struct Sparsify {
    /// How many, and where.
    pub options: SparsifyOptions,
    /// Importance of the elements of weights, by name; magnitude where there is none.
    pub scores: HashMap<String, Vec<f32>>,
}

impl Pass for Sparsify {
    fn name(&self) -> &'static str {
        "sparsify"
    }

    fn effect(&self) -> Effect {
        Effect::Lossy
    }

    fn run(&self, model: &mut Model, cx: &PassContext) -> Result<Outcome> {
        self.options.check()?;
        let Some(goal) = self.options.goal else { return Ok(Outcome::default()) };
        let found = layers(model, &self.options)?;
        let graph = &model.graph;
        let mut weights: Vec<(SparseLayer, Vec<f32>)> = vec![];
        for layer in found {
            let Some(t) = graph.constant(layer.weight) else { continue };
            let scores = match self.scores.get(graph.name(layer.weight)).filter(|s| s.len() == t.len()) {
                Some(scores) => scores.clone(),
                None => t.to_f32().context(|| format!("\"{}\"", graph.name(layer.weight)))?,
            };
            weights.push((layer, scores));
        }
        let common = match goal {
            Goal::Sparsity(share) if self.options.global => Some(smallest(&weights, share)),
            _ => None,
        };
        let mut patch = Patch::default();
        let mut changes = 0;
        for (layer, data) in &weights {
            let Some(t) = graph.constant(layer.weight) else { continue };
            let gone = match (goal, common) {
                (Goal::Sparsity(_), Some(limit)) => data.iter().map(|x| x.abs() <= limit).collect(),
                _ => smallest_of(t, data, layer, goal, self.options.block),
            };
            let zeroed = with_zeros(t, &gone)?;
            if zeroed != *t && cx.burn(self.name()) {
                patch.set_value(layer.weight, graph.ty(layer.weight).cloned(), Some(zeroed));
                changes += 1;
            }
        }
        patch.apply(&mut model.graph)?;
        Ok(Outcome { changes, ..Outcome::default() })
    }
}

/// Which elements of a weight go by magnitude where no other weight counts.
pub fn smallest_of(t: &Tensor, data: &[f32], layer: &SparseLayer, goal: Goal, block: Option<Block>) -> Vec<bool> {
    match (goal, block) {
        (Goal::Threshold(limit), _) => data.iter().map(|x| x.abs() < limit).collect(),
        (Goal::Pattern(pattern), _) => by_pattern(t, data, layer.input_axis, pattern),
        (Goal::Sparsity(share), None) => of_layer(data, share),
        (Goal::Sparsity(share), Some(block)) => by_blocks(t, data, (layer.output_axis, layer.input_axis), block, share),
    }
}

/// The blocks with the smallest mean squares, up to a share of the elements.
fn by_blocks(t: &Tensor, data: &[f32], axes: (usize, usize), block: Block, share: f64) -> Vec<bool> {
    let blocks = blocks_of(t, axes, block);
    let scores = block_scores(&blocks, data);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].0.total_cmp(&scores[b].0).then(a.cmp(&b)));
    let mut room = share * data.len() as f64;
    let mut gone = vec![false; scores.len()];
    for k in order {
        if room < scores[k].1 as f64 / 2.0 {
            break;
        }
        room -= scores[k].1 as f64;
        gone[k] = true;
    }
    blocks.iter().map(|&b| gone[b]).collect()
}

/// The block of each element.
fn blocks_of(t: &Tensor, axes: (usize, usize), block: Block) -> Vec<usize> {
    let per = |axis: usize| match axis {
        a if a == axes.0 => block.outputs,
        a if a == axes.1 => block.inputs,
        _ => 1,
    };
    let counts: Vec<usize> = (0..t.rank()).map(|a| t.dims[a].div_ceil(per(a))).collect();
    let of = |k: usize| {
        let (mut rest, mut number, mut step) = (k, 0, 1);
        for axis in (0..t.rank()).rev() {
            number += rest % t.dims[axis] / per(axis) * step;
            rest /= t.dims[axis];
            step *= counts[axis];
        }
        number
    };
    (0..t.len()).map(of).collect()
}

/// Mean square and number of elements of each block.
fn block_scores(blocks: &[usize], data: &[f32]) -> Vec<(f64, usize)> {
    let mut scores = vec![(0f64, 0usize); blocks.iter().max().map_or(0, |m| m + 1)];
    for (&b, x) in blocks.iter().zip(data) {
        scores[b].0 += f64::from(*x) * f64::from(*x);
        scores[b].1 += 1;
    }
    scores.iter_mut().for_each(|s| s.0 /= s.1.max(1) as f64);
    scores
}

/// The magnitude up to which this share of all weights lies.
fn smallest(weights: &[(SparseLayer, Vec<f32>)], share: f64) -> f32 {
    let mut all: Vec<f32> = weights.iter().flat_map(|(_, data)| data).map(|x| x.abs()).collect();
    let n = ((share * all.len() as f64).round() as usize).min(all.len());
    if n == 0 {
        return -1.0;
    }
    *all.select_nth_unstable_by(n - 1, f32::total_cmp).1
}

/// Exactly the share of a layer, the first ones of equal magnitude.
fn of_layer(data: &[f32], share: f64) -> Vec<bool> {
    let mut order: Vec<u32> = (0..data.len() as u32).collect();
    let magnitude = |k: &u32| data[*k as usize].abs();
    order.sort_by(|a, b| magnitude(a).total_cmp(&magnitude(b)).then(a.cmp(b)));
    let mut gone = vec![false; data.len()];
    order.iter().take((share * data.len() as f64).round() as usize).for_each(|&k| gone[k as usize] = true);
    gone
}

/// All but `keep` of every `of` elements along the axis; an incomplete last run keeps its share, rounded up.
fn by_pattern(t: &Tensor, data: &[f32], axis: usize, pattern: Pattern) -> Vec<bool> {
    let (size, inner) = (t.dims[axis], t.dims[axis + 1..].iter().product::<usize>().max(1));
    let mut gone = vec![false; data.len()];
    for start in (0..data.len()).step_by(size * inner) {
        for column in 0..inner {
            for first in (0..size).step_by(pattern.of) {
                let last = (first + pattern.of).min(size);
                let mut run: Vec<usize> = (first..last).map(|k| start + k * inner + column).collect();
                run.sort_by(|&a, &b| data[b].abs().total_cmp(&data[a].abs()).then(a.cmp(&b)));
                let keep = (pattern.keep * run.len()).div_ceil(pattern.of);
                run.iter().skip(keep).for_each(|&k| gone[k] = true);
            }
        }
    }
    gone
}

/// The tensor, positive zero where `gone`.
///
/// # Errors
/// Data that were not loaded.
pub fn with_zeros(t: &Tensor, gone: &[bool]) -> Result<Tensor> {
    let size = t.dtype.bits() / 8;
    debug_assert!(t.dtype != DType::String && size > 0);
    let mut bytes = t.bytes()?.into_owned();
    for (x, _) in bytes.chunks_exact_mut(size.max(1)).zip(gone).filter(|(_, gone)| **gone) {
        x.fill(0);
    }
    Ok(Tensor { extra: t.extra.clone(), ..Tensor::raw(t.dtype, &t.dims, bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_holds_along_the_input_channels() {
        let data: Vec<f32> = (0..2 * 6 * 3).map(|k| ((k * 7919) % 101) as f32 - 50.0).collect();
        let t = Tensor::from_f32(&[2, 6, 3], &data);
        let gone = by_pattern(&t, &data, 1, Pattern { keep: 2, of: 4 });
        for (o, k) in (0..2).flat_map(|o| (0..3).map(move |k| (o, k))) {
            let at = |i: usize| o * 18 + i * 3 + k;
            assert_eq!((0..4).filter(|&i| gone[at(i)]).count(), 2);
            assert_eq!((4..6).filter(|&i| gone[at(i)]).count(), 1, "half of what is left over");
            let largest_gone = (0..4).filter(|&i| gone[at(i)]).map(|i| data[at(i)].abs()).fold(0.0, f32::max);
            assert!((0..4).filter(|&i| !gone[at(i)]).all(|i| data[at(i)].abs() >= largest_gone));
        }
    }

    #[test]
    fn blocks_go_whole() {
        let data: Vec<f32> = (0..4 * 3 * 2).map(|k| ((k * 7919) % 101) as f32 - 50.0).collect();
        let t = Tensor::from_f32(&[4, 3, 2], &data);
        let gone = by_blocks(&t, &data, (0, 1), "2x2".parse().unwrap(), 0.5);
        for (o, i, k) in (0..4).flat_map(|o| (0..3).flat_map(move |i| (0..2).map(move |k| (o, i, k)))) {
            assert_eq!(gone[o * 6 + i * 2 + k], gone[o / 2 * 2 * 6 + i / 2 * 2 * 2 + k]);
        }
        assert_eq!(gone.iter().filter(|g| **g).count(), 12);
    }

    #[test]
    fn a_share_is_exact_among_equal_magnitudes() {
        assert_eq!(of_layer(&[1.0; 10], 0.3).iter().filter(|&&g| g).count(), 3);
        assert_eq!(of_layer(&[3.0, -1.0, 2.0, 0.5], 0.5), [false, true, false, true]);
    }
}
