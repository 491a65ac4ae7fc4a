//! Channels that hold one number whatever the input go into the biases of the layers that take them.

use super::known::{Channels, constant_channels};
use crate::analysis::shapes::{Contexts, infer_types};
use crate::error::Result;
use crate::ir::{Graph, Model, Tensor};
use crate::math::{Padding, Unfold};
use crate::passes::{Effect, Evaluator, Linear, Note, Outcome, Pass, PassContext, Patch};

/// Before: a layer takes a channel that is `c` everywhere, because all weights that make it are zero. After: its weights for
/// the channel are zero, and its bias holds what they gave.
///
/// When: the layer has one group and a weight and bias of its own, and either no padding or `c = 0`: at a padded border the
/// channel counts for less. Why it is equal: sums in another order.
pub struct FoldConstantChannels<'a> {
    /// Computes what lies between.
    pub evaluator: &'a dyn Evaluator,
}

impl Pass for FoldConstantChannels<'_> {
    fn name(&self) -> &'static str {
        "fold_constant_channels"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn run(&self, model: &mut Model, cx: &PassContext) -> Result<Outcome> {
        infer_types(model)?;
        let graph = &model.graph;
        let known = constant_channels(model, self.evaluator)?;
        let contexts = Contexts::new(model, graph);
        let (mut patch, mut outcome) = (Patch::default(), Outcome::default());
        for id in graph.order()? {
            let Some(linear) = Linear::of(&contexts, graph, id) else { continue };
            let input = graph.find(&linear.input);
            let Some(channels) = input.and_then(|v| known.get(&v)).filter(|_| linear.groups() == 1) else { continue };
            let Some(rows) = folded(graph, &linear, channels)? else { continue };
            if let Err(why) = rows.allowed(graph, &linear) {
                let (pass, subject) = (self.name().into(), graph.node(id).label());
                outcome.notes.push(Note { pass, subject, text: why.into() });
            } else if cx.burn(self.name()) {
                patch.set_value(
                    linear.weight,
                    graph.ty(linear.weight).cloned(),
                    Some(linear.tensor(graph, rows.weight)?),
                );
                if linear.centred() {
                    linear.shift(graph, &rows.shifts, &mut patch)?;
                } else if rows.shifts.iter().any(|&s| s != 0.0) {
                    let bias: Vec<f32> = rows.shifts.iter().map(|&s| s as f32).collect();
                    let bias =
                        patch.constant(&format!("{}_bias", linear.output), Tensor::from_f32(&[bias.len()], &bias));
                    patch.set_input(id, 2, Some(bias));
                }
                outcome.changes += 1;
            }
        }
        patch.apply(&mut model.graph)?;
        Ok(outcome)
    }
}

/// A weight without what meets constant channels, and what that gave to each output.
struct Folded {
    weight: Vec<f32>,
    shifts: Vec<f64>,
}

/// `None` where there is nothing to fold.
fn folded(graph: &Graph, linear: &Linear, channels: &Channels) -> Result<Option<Folded>> {
    let mut weight = linear.rows(graph)?;
    let (Some(outputs), inputs) = (linear.outputs(graph).filter(|&n| n > 0), channels.values.len()) else {
        return Ok(None);
    };
    let rank = graph.find(&linear.input).and_then(|v| graph.ty(v)?.shape().map(<[_]>::len));
    let axis = if matches!(linear.unfold, Unfold::Last) { rank.and_then(|r| r.checked_sub(1)) } else { Some(1) };
    let columns = weight.len() / outputs;
    if axis != Some(channels.axis) || inputs == 0 || columns % inputs != 0 {
        return Ok(None);
    }
    let taps = columns / inputs;
    let mut shifts = vec![0f64; outputs];
    let mut changed = false;
    for (row, shift) in weight.chunks_mut(columns).zip(&mut shifts) {
        for (taps, c) in row.chunks_mut(taps).zip(&channels.values) {
            let Some(c) = c.filter(|c| c.is_finite()) else { continue };
            *shift += taps.iter().map(|&w| f64::from(w) * f64::from(c)).sum::<f64>();
            changed |= taps.iter().any(|&w| w != 0.0);
            taps.fill(0.0);
        }
    }
    Ok(changed.then_some(Folded { weight, shifts }))
}

impl Folded {
    fn allowed(&self, graph: &Graph, linear: &Linear) -> std::result::Result<(), &'static str> {
        if self.shifts.iter().all(|&s| s == 0.0) {
            return Ok(());
        }
        let padded = match &linear.unfold {
            Unfold::Last => false,
            Unfold::Patches(p) => !matches!(&p.padding, Padding::Fixed(p) if p.iter().all(|&p| p == (0, 0))),
        };
        if padded {
            return Err("it pads channels that are constant: at the borders they count for less, so they stay");
        }
        let node = graph.node(linear.node);
        let takes_bias = (node.op.is("Conv") || node.op.is("Gemm")) && graph.input(linear.node, 2).is_none();
        if linear.centred() || takes_bias { Ok(()) } else { Err("it has no bias that could take up constant channels") }
    }
}
