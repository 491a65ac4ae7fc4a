//! Linear layers as least squares sees them: rows of a weight that meet columns of an input.

use crate::analysis::shapes::Contexts;
use crate::error::{Error, Result};
use crate::ir::{DType, Graph, Model, NodeId, Port, Tensor, ValueId};
use crate::math::Unfold;
use crate::ops;
use crate::ops::spec::{Purpose, QuantRole};
use crate::passes::Patch;

/// A layer with a float weight of its own: its outputs are products of the weight's rows with columns of its input.
#[derive(Clone, Debug)]
pub struct Linear {
    /// The node.
    pub node: NodeId,
    /// Its weight, `[outputs, inputs, window...]` or `[inputs, outputs]`.
    pub weight: ValueId,
    /// Axes of the weight over outputs and over inputs.
    pub axes: (usize, usize),
    /// Its input, by name.
    pub input: String,
    /// Its output, by name.
    pub output: String,
    /// How it sees its input.
    pub unfold: Unfold,
    /// What can take up a shift of its outputs.
    shift: Shift,
}

#[derive(Clone, Copy, Debug)]
enum Shift {
    Nothing,
    Bias(ValueId),
    /// What an Add behind it adds to each output.
    Behind(ValueId),
    /// The mean of the BatchNormalization behind it.
    Mean(ValueId),
}

impl Linear {
    /// The node as such a layer; `None` where it is none, or shares its weight.
    pub fn of(contexts: &Contexts, graph: &Graph, node: NodeId) -> Option<Self> {
        let cx = contexts.of(node);
        let spec = ops::spec(&graph.node(node).op)?;
        let (role, QuantRole::Compute(compute)) = (spec.weight(&cx)?, spec.quant(&cx)) else { return None };
        let Purpose::Product(Some((slot, unfold))) = role.purpose else { return None };
        let (weight, input) = (graph.input(node, role.slot)?, graph.input(node, slot)?);
        let t = graph.constant(weight).filter(|t| t.dtype == DType::F32 && t.rank() > 1)?;
        let axes = (role.channel_axis, role.block_axis);
        let windows = t.rank() == 2 || axes == (0, 1);
        if compute.weight != role.slot || graph.use_count(weight) != 1 || axes.0.max(axes.1) != 1 || !windows {
            return None;
        }
        let bias = compute.bias.and_then(|slot| graph.input(node, slot));
        let (name, output) = (|v| graph.name(v).to_string(), graph.output(node, 0)?);
        let shift = match bias {
            // A bias that others use too can neither move nor be told from what the weight gives.
            Some(bias) => Shift::Bias(Some(bias).filter(|&b| own(graph, b, t.dims[axes.0]))?),
            None => shift_behind(graph, node, &unfold, t.dims[axes.0]),
        };
        Some(Self { node, weight, axes, input: name(input), output: name(output), unfold, shift })
    }

    /// Groups of outputs that see different inputs.
    pub fn groups(&self) -> usize {
        match &self.unfold {
            Unfold::Last => 1,
            Unfold::Patches(p) => p.groups,
        }
    }

    /// Whether a bias, or the mean of a BatchNormalization, can make up for a shift of the outputs: then only how they vary
    /// counts.
    pub fn centred(&self) -> bool {
        !matches!(self.shift, Shift::Nothing)
    }

    /// Elements of a column: inputs of a group times places of the window.
    pub fn columns(&self, graph: &Graph) -> usize {
        graph.constant(self.weight).map_or(0, |t| t.len() / t.dims[self.axes.0].max(1))
    }

    /// Number of outputs; `None` where the weight is gone.
    pub fn outputs(&self, graph: &Graph) -> Option<usize> {
        graph.constant(self.weight).map(|t| t.dims[self.axes.0])
    }

    /// The weight as `[outputs, columns]`.
    ///
    /// # Errors
    /// A weight that is gone or is no float.
    pub fn rows(&self, graph: &Graph) -> Result<Vec<f32>> {
        let t = graph.constant(self.weight).ok_or_else(|| Error::internal("the weight of a layer is gone"))?;
        let data = t.to_f32()?;
        Ok(if self.axes.0 == 0 { data } else { transposed(&data, t.dims[0], t.dims[1]) })
    }

    /// The weight tensor with these rows.
    ///
    /// # Errors
    /// As [`Linear::rows`].
    pub fn tensor(&self, graph: &Graph, rows: Vec<f32>) -> Result<Tensor> {
        let t = graph.constant(self.weight).ok_or_else(|| Error::internal("the weight of a layer is gone"))?;
        if rows.len() != t.len() {
            return Err(Error::internal("rows of another layer"));
        }
        let data = if self.axes.0 == 0 { rows } else { transposed(&rows, t.dims[1], t.dims[0]) };
        Ok(Tensor { extra: t.extra.clone(), ..Tensor::from_f32(&t.dims, &data) })
    }

    /// Lets the layer's outputs grow by `shifts`, one for each, where something takes that up.
    ///
    /// # Errors
    /// A bias that is gone.
    pub fn shift(&self, graph: &Graph, shifts: &[f64], patch: &mut Patch) -> Result<()> {
        let (vector, sign) = match self.shift {
            Shift::Nothing => return Ok(()),
            Shift::Bias(v) | Shift::Behind(v) => (v, 1.0),
            Shift::Mean(v) => (v, -1.0),
        };
        let old = graph.constant(vector).ok_or_else(|| Error::internal("the bias of a layer is gone"))?;
        let new: Vec<f32> = old.to_f32()?.iter().zip(shifts).map(|(b, s)| (f64::from(*b) + sign * s) as f32).collect();
        if new.len() == shifts.len() && new.len() == old.len() {
            let new = Tensor { extra: old.extra.clone(), ..Tensor::from_f32(&old.dims, &new) };
            patch.set_value(vector, graph.ty(vector).cloned(), Some(new));
        }
        Ok(())
    }

    /// The layer's own bias; zeros where it has none.
    ///
    /// # Errors
    /// A bias that is gone.
    pub fn offsets(&self, graph: &Graph, outputs: usize) -> Result<Vec<f64>> {
        match self.shift {
            Shift::Nothing | Shift::Behind(_) | Shift::Mean(_) => Ok(vec![0.0; outputs]),
            Shift::Bias(v) => {
                let t = graph.constant(v).ok_or_else(|| Error::internal("the bias of a layer is gone"))?;
                Ok(t.to_f32()?.into_iter().map(f64::from).collect())
            }
        }
    }

    /// By how much the energy of each output counts: the square of what a BatchNormalization behind the layer multiplies it
    /// with, else 1.
    pub fn gains(&self, graph: &Graph, outputs: usize) -> Vec<f64> {
        let of_norm = || {
            let behind = norm_behind(graph, self.node)?;
            let read = |slot| graph.constant(graph.input(behind, slot)?)?.to_f32().ok();
            let (scale, var) = (read(1)?, read(4)?);
            let epsilon = graph.node(behind).float("epsilon").unwrap_or(1e-5);
            let gain = |(s, v): (&f32, &f32)| f64::from(*s).powi(2) / f64::from(v + epsilon).max(1e-12);
            Some(scale.iter().zip(&var).map(gain).collect::<Vec<f64>>()).filter(|g| g.len() == outputs)
        };
        of_norm().unwrap_or_else(|| vec![1.0; outputs])
    }
}

/// The linear layers of the main graph, in execution order.
///
/// # Errors
/// A graph with a cycle.
pub fn linear_layers(model: &Model) -> Result<Vec<Linear>> {
    let contexts = Contexts::new(model, &model.graph);
    Ok(model.graph.order()?.into_iter().filter_map(|id| Linear::of(&contexts, &model.graph, id)).collect())
}

fn transposed(data: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| data[r * columns + c])).collect()
}

/// The BatchNormalization that alone takes the node's output.
fn norm_behind(graph: &Graph, node: NodeId) -> Option<NodeId> {
    let only = graph.only_use(graph.output(node, 0)?).filter(|u| u.port == Port::In(0))?;
    graph.node(only.node).op.is("BatchNormalization").then_some(only.node)
}

/// Whether the value is a constant that one node alone uses, with an element for each output along its last axis.
fn own(graph: &Graph, v: ValueId, outputs: usize) -> bool {
    let fits = |t: &Tensor| t.dtype == DType::F32 && t.len() == outputs && t.dims.last() == Some(&outputs);
    graph.use_count(v) == 1 && graph.constant(v).is_some_and(fits)
}

fn shift_behind(graph: &Graph, node: NodeId, unfold: &Unfold, outputs: usize) -> Shift {
    if let Some(mean) = norm_behind(graph, node).and_then(|n| graph.input(n, 3)).filter(|&v| own(graph, v, outputs)) {
        return Shift::Mean(mean);
    }
    let Some(only) = graph.output(node, 0).and_then(|y| graph.only_use(y)) else { return Shift::Nothing };
    let other = match only.port {
        Port::In(slot) if graph.node(only.node).op.is("Add") => graph.input(only.node, 1 - slot.min(1) as usize),
        _ => None,
    };
    // The last axis of a convolution's output holds no channels.
    match other.filter(|&v| matches!(unfold, Unfold::Last) && own(graph, v, outputs)) {
        Some(v) => Shift::Behind(v),
        None => Shift::Nothing,
    }
}
