//! Moves outliers among the channels of a layer's input into its weight, where each output channel has a scale of its own.

mod fold;
mod search;
mod strength;
mod targets;

pub use strength::Migrate;

use super::options::QuantizeOptions;
use super::structure::Structure;
use super::trial::{Layer, Trial};
use crate::calibrate::Sample;
use crate::error::{Context, Result};
use crate::ir::{DType, Graph, Model, Node, OpId, Tensor, ValueId};
use crate::passes::{Effect, Note, Outcome, Pass, PassContext, Patch};
use search::{Found, search};
use std::collections::HashMap;
use targets::{Target, targets};

/// A searched factor is written where it takes at least this share off the squared error: it costs a multiplication.
const WORTH: f64 = 0.1;

/// Before: `y = MatMul(x, W)`. After: `m = Mul(x, 1 / s)`, `y = MatMul(m, s * W)`, `s` per input channel; all linear layers
/// that take `x` take `m`. Where a LayerNormalization, a linear layer or an affine map makes `x`, and nobody else takes it,
/// their constants are divided instead.
///
/// When: `x` is computed in float (a value that is rounded to 8 bits already has lost what migration would keep), and the
/// weights have no other use.
/// Why it is equal: each product `x_j W_jk` is divided and multiplied by the same number.
pub struct MigrateRanges {
    /// The options of the quantization that follows.
    pub options: QuantizeOptions,
    /// Samples of the inputs, by name: see [`MigrateRanges::wanted`].
    pub samples: HashMap<String, Sample>,
}

impl Pass for MigrateRanges {
    fn name(&self) -> &'static str {
        "migrate_ranges"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn run(&self, model: &mut Model, cx: &PassContext) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let structure = Structure::decide(model, &self.options)?;
        let (found, notes) = targets(&model.graph, &structure, &self.options);
        outcome.notes = notes.into_iter().map(|(subject, text)| self.note(subject, text)).collect();
        let (mut before, mut after, mut count, mut inserted) = (0.0, 0.0, 0usize, 0usize);
        for target in found {
            let graph = &model.graph;
            let Some(sample) = self.samples.get(graph.name(target.input)) else { continue };
            let layers: Result<Vec<Layer>> =
                target.layers.iter().map(|(id, role)| Layer::of(graph, *id, role)).collect();
            let layers = layers?;
            let trial = Trial::new(&layers, sample, &self.options).context(|| graph.name(target.input).to_string())?;
            let found = trial.and_then(|trial| search(self.options.migrate, &layers, sample, &trial));
            let worth = |f: &Found| self.options.migrate != Migrate::Auto || f.errors.1 < (1.0 - WORTH) * f.errors.0;
            let Some(found) = found.filter(worth) else { continue };
            let (is_folded, patch) = divide(graph, &target, &found.factors)?;
            if cx.burn(self.name()) {
                patch.apply(&mut model.graph)?;
                (before, after) = (before + found.errors.0, after + found.errors.1);
                count += 1;
                inserted += usize::from(!is_folded);
            }
        }
        outcome.changes = count;
        if count > 0 {
            let decibels = |e: f64| -10.0 * (e / count as f64).log10();
            let (before, after) = (decibels(before), decibels(after));
            let text = format!(
                "moved outliers of {count} layer inputs into weights, {inserted} of them by a Mul because what makes the input \
                 cannot take the factors: outputs of those layers {before:.1} dB -> {after:.1} dB"
            );
            outcome.notes.push(self.note(String::new(), text));
        }
        Ok(outcome)
    }
}

impl MigrateRanges {
    /// Names of the values to sample.
    ///
    /// # Errors
    /// As [`Structure::decide`].
    pub fn wanted(model: &Model, options: &QuantizeOptions) -> Result<Vec<String>> {
        let structure = Structure::decide(model, options)?;
        let (found, _) = targets(&model.graph, &structure, options);
        Ok(found.iter().map(|t| model.graph.name(t.input).to_string()).collect())
    }

    fn note(&self, subject: String, text: String) -> Note {
        Note { pass: self.name().into(), subject, text }
    }
}

/// Divides the input's channels, where it is made or else by a multiplication before the layers, and multiplies the weights
/// of the layers. Whether it was folded, and the changes.
fn divide(graph: &Graph, target: &Target, factors: &[f32]) -> Result<(bool, Patch)> {
    let x = target.input;
    let name = graph.name(x);
    let inverse: Vec<f32> = factors.iter().map(|f| 1.0 / f).collect();
    let folded = fold::fold(graph, target, &inverse);
    let is_folded = folded.is_some();
    let mut patch = folded.unwrap_or_default();
    if !is_folded {
        let constant = patch.constant(&format!("{name}_migration"), Tensor::from_f32(&[inverse.len()], &inverse));
        let mut node = Node::new(OpId::onnx("Mul"));
        node.rank = graph.producer(x).map_or(0, |(p, _)| graph.node(p).rank);
        let inputs = [Some(x.into()), Some(constant)];
        let scaled = patch.node(node, &inputs, &format!("{name}_migrated"), graph.ty(x).cloned());
        target.layers.iter().for_each(|(id, role)| patch.set_input(*id, role.activation, Some(scaled)));
    }
    // The numbers that are multiplied are those that the input is divided by, as they were rounded.
    let exact: Vec<f64> = inverse.iter().map(|&f| 1.0 / f64::from(f)).collect();
    for (id, role) in &target.layers {
        let Some(w) = graph.input(*id, role.weight) else { continue };
        let Some(tensor) = scaled_inputs(graph, w, role.weight_axis, &exact)? else { continue };
        let new = patch.constant(graph.name(w), tensor);
        patch.replace(w, new);
    }
    Ok((is_folded, patch))
}

/// The matrix with its inputs multiplied: those run along the axis that outputs do not.
fn scaled_inputs(graph: &Graph, w: ValueId, output_axis: usize, factors: &[f64]) -> Result<Option<Tensor>> {
    let Some(tensor) = graph.constant(w).filter(|t| t.dtype == DType::F32) else { return Ok(None) };
    let columns = tensor.dims.get(1).copied().unwrap_or(1).max(1);
    let input = |k: usize| if output_axis == 1 { k / columns } else { k % columns };
    let data = tensor.to_f32()?;
    let data: Vec<f32> = data.iter().enumerate().map(|(k, &x)| (f64::from(x) * factors[input(k)]) as f32).collect();
    Ok(Some(Tensor::from_f32(&tensor.dims, &data)))
}
