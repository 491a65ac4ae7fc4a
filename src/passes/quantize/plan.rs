//! The plan: which nodes compute in integers, with which scale and zero point for each value. Both spellings write it.

use super::groups::ScaleGroups;
use super::options::{Eight, Precision, QuantizeOptions};
use super::rounding::Rounded;
use super::selection::Selection;
use super::structure::{Decision, Kind, Structure};
use crate::error::{Context, Error, Result};
use crate::ir::{Graph, Model, NodeId, Tensor, ValueId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Scale and zero point of a value: `x = scale * (q - zero_point)`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Quantization {
    /// Step.
    pub scale: f32,
    /// The integer that stands for zero.
    pub zero_point: i32,
    /// Type.
    pub eight: Eight,
}

impl Quantization {
    /// Smallest and largest real value that has a code.
    pub fn range(&self) -> (f32, f32) {
        let (qmin, qmax) = self.eight.bounds();
        let real = |q: i32| self.scale * (q - self.zero_point) as f32;
        (real(qmin), real(qmax))
    }

    /// The code of a real value, saturated.
    pub fn code(&self, x: f32) -> i32 {
        let (qmin, qmax) = self.eight.bounds();
        ((x / self.scale).round_ties_even() as i32).saturating_add(self.zero_point).clamp(qmin, qmax)
    }
}

/// Where a value stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Integer nodes depend on it: the rounding and clipping of many such values average out.
    Inner,
    /// Only float nodes, on the way to the graph's outputs: what is clipped here is clipped in the result.
    Last,
}

/// What to write.
pub struct Plan {
    /// Which nodes.
    pub structure: Structure,
    /// Which values share a scale.
    pub groups: ScaleGroups,
    /// Options it was made with.
    pub options: QuantizeOptions,
    quantizations: HashMap<usize, Quantization>,
    input_means: HashMap<ValueId, Vec<f32>>,
    input_drifts: HashMap<ValueId, Vec<f32>>,
    rounded: HashMap<NodeId, RoundedLayer>,
    /// Layers whose weights have 4 bits whatever the options say.
    four: HashSet<NodeId>,
    /// Scale groups of 16 bits whatever the options say.
    sixteen: HashSet<usize>,
}

/// A weight that was rounded with the calibration data in view.
#[derive(Clone)]
pub struct RoundedLayer {
    /// Codes and scales; rows are output channels.
    pub weight: Arc<Rounded>,
    /// What is added to the bias so that rounding does not shift mean outputs; `None` where there is no room for it.
    pub correction: Option<Vec<f32>>,
}

impl Plan {
    /// Structure and groups, without scales: enough to know what to observe.
    ///
    /// # Errors
    /// As [`Structure::decide`]; NaN or infinity in a weight or a bias, named before calibration stumbles over it.
    pub fn draft(model: &Model, options: &QuantizeOptions) -> Result<Self> {
        let structure = Structure::decide(model, options)?;
        check_weights(&model.graph, &structure)?;
        let groups = ScaleGroups::of(&model.graph, &structure, options);
        let selection = Selection::new(options)?;
        let (mut four, mut sixteen) = (HashSet::new(), HashSet::new());
        for (id, kind) in structure.integer_nodes() {
            match selection.precision(model.graph.node(id)) {
                Some(Precision::Four) if matches!(kind, Kind::Compute(_)) => {
                    four.insert(id);
                }
                Some(Precision::Sixteen) => {
                    let slots = Structure::quantized_slots(&model.graph, id, kind);
                    let taken = slots.into_iter().filter_map(|slot| groups.group(model.graph.input(id, slot)?));
                    sixteen.extend(taken);
                }
                _ => {}
            }
        }
        Ok(Self {
            structure,
            groups,
            options: options.clone(),
            quantizations: HashMap::new(),
            input_means: HashMap::new(),
            input_drifts: HashMap::new(),
            rounded: HashMap::new(),
            four,
            sixteen,
        })
    }

    /// The plan that quantizes nothing.
    pub fn empty(options: &QuantizeOptions) -> Self {
        let structure = Structure::empty();
        let groups = ScaleGroups::of(&Graph::default(), &structure, options);
        let (structure, options) = (structure, options.clone());
        let (quantizations, rounded) = (HashMap::new(), HashMap::new());
        let (input_means, input_drifts) = (HashMap::new(), HashMap::new());
        let (four, sixteen) = (HashSet::new(), HashSet::new());
        Self { structure, groups, options, quantizations, input_means, input_drifts, rounded, four, sixteen }
    }

    /// Bits of a layer's weight.
    pub fn weight_bits(&self, node: NodeId) -> u8 {
        if self.four.contains(&node) { self.options.weight_bits.min(4) } else { self.options.weight_bits }
    }

    /// Whether any layer's weights have fewer than 8 bits.
    pub fn has_few_bits(&self) -> bool {
        self.options.weight_bits < 8 || !self.four.is_empty()
    }

    /// Gives a layer its rounded weight, and what is added to its bias.
    pub fn set_rounded(&mut self, node: NodeId, rounded: RoundedLayer) {
        self.rounded.insert(node, rounded);
    }

    /// The rounded weight of a layer, where it was made ahead.
    pub fn rounded(&self, node: NodeId) -> Option<&RoundedLayer> {
        self.rounded.get(&node)
    }

    /// Names of the values whose ranges are needed.
    pub fn observed<'a>(&'a self, graph: &'a Graph) -> Vec<&'a str> {
        self.groups.observed().map(|v| graph.name(v)).collect()
    }

    /// Gives every group its scale and zero point. `quantize` makes them from a group's source names, for a type.
    ///
    /// # Errors
    /// Those of `quantize`, for example a value that was not observed.
    pub fn set_scales(
        &mut self,
        graph: &Graph,
        quantize: impl Fn(&[&str], Reach, Eight) -> Result<Quantization>,
    ) -> Result<()> {
        let inner = self.values_that_reach_integers(graph);
        for group in 0..self.groups.len() {
            let sources = self.groups.sources(group);
            let names: Vec<&str> = sources.iter().map(|&v| graph.name(v)).collect();
            let reach = if sources.iter().any(|v| inner.contains(v)) { Reach::Inner } else { Reach::Last };
            let eight =
                if self.sixteen.contains(&group) { self.options.activations.wide() } else { self.options.activations };
            self.quantizations.insert(group, quantize(&names, reach, eight)?);
        }
        Ok(())
    }

    /// Values from which a path leads into an integer node.
    fn values_that_reach_integers(&self, graph: &Graph) -> HashSet<ValueId> {
        let mut inner = HashSet::new();
        for &id in self.structure.order.iter().rev() {
            let integer = matches!(self.structure.decision(id), Decision::Integer(_));
            let outputs = graph.node_outputs(id);
            if integer || outputs.into_iter().flatten().any(|v| inner.contains(&v)) {
                inner.extend(graph.node_inputs(id).into_iter().flatten());
                inner.extend(graph.captures(id));
            }
        }
        inner
    }

    /// Inputs of linear layers whose channel means correct biases: name, and the axis that channels run along (counted
    /// from the end where negative). Empty where the options do not want the correction.
    pub fn mean_inputs<'a>(&self, graph: &'a Graph) -> Vec<(&'a str, i64)> {
        if self.options.bias_correction { self.layers_with_bias(graph) } else { vec![] }
    }

    /// Inputs of linear layers that have room for a bias: name, and the axis that channels run along (counted from the end
    /// where negative).
    pub fn layers_with_bias<'a>(&self, graph: &'a Graph) -> Vec<(&'a str, i64)> {
        let mut found = vec![];
        let mut seen = HashSet::new();
        for (id, kind) in self.structure.integer_nodes() {
            let Kind::Compute(role) = kind else { continue };
            let Some(x) = graph.input(id, role.activation).filter(|_| role.bias.is_some()) else { continue };
            let axis = if graph.node(id).op.is("Conv") { 1 } else { -1 };
            if seen.insert(x) {
                found.push((graph.name(x), axis));
            }
        }
        found
    }

    /// Gives the mean of each channel of an input.
    pub fn set_input_mean(&mut self, graph: &Graph, name: &str, mean: Vec<f32>) {
        if let Some(v) = graph.find(name) {
            self.input_means.insert(v, mean);
        }
    }

    /// Mean of each channel of a value, where it is known.
    pub fn input_mean(&self, v: ValueId) -> Option<&[f32]> {
        self.input_means.get(&v).map(Vec::as_slice)
    }

    /// Gives what rounding an input to its codes adds to the mean of each of its channels.
    pub fn set_input_drift(&mut self, graph: &Graph, name: &str, drift: Vec<f32>) {
        if let Some(v) = graph.find(name) {
            self.input_drifts.insert(v, drift);
        }
    }

    /// What rounding adds to the mean of each channel of a value, where it was measured.
    pub fn input_drift(&self, v: ValueId) -> Option<&[f32]> {
        self.input_drifts.get(&v).map(Vec::as_slice)
    }

    /// Scale and zero point of a value.
    pub fn quantization(&self, v: ValueId) -> Option<Quantization> {
        self.quantizations.get(&self.groups.group(v)?).copied()
    }
}

fn check_weights(graph: &Graph, structure: &Structure) -> Result<()> {
    for (id, kind) in structure.integer_nodes() {
        let Kind::Compute(role) = kind else { continue };
        for v in [Some(role.weight), role.bias].into_iter().flatten().filter_map(|slot| graph.input(id, slot)) {
            let data = graph.constant(v).map(Tensor::to_f32).transpose()?.unwrap_or_default();
            if let Some(at) = data.iter().position(|x| !x.is_finite()) {
                let error = Error::invalid(format!("\"{}\" holds {} at position {at}", graph.name(v), data[at]));
                return Err(error).context(|| graph.node(id).label());
            }
        }
    }
    Ok(())
}
