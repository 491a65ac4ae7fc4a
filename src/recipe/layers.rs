//! Trying precisions: what one assignment of precisions to layers costs, measured by execution.

use super::progress::Silent;
use super::quantize::{DEFAULT_BATCH, quantize};
use super::run::{Fallback, open_data};
use super::schema::{QuantizeStep, ValidateStep};
use crate::drift::{self, OutputDrift};
use crate::error::{Error, Result};
use crate::io::{self, Dataset};
use crate::ir::{Model, ValueId};
use crate::passes::PassContext;
use crate::passes::quantize::{Decision, Kind, Precision, quantize_weight};
use std::collections::{BTreeMap, BTreeSet};

/// Precision by layer name.
pub type Assignment = BTreeMap<String, Precision>;

/// Samples that are compared on where the caller does not say: many runs are made.
pub const PROBE_SAMPLES: usize = 64;

/// A layer that can have another precision.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Node name, which is unique.
    pub name: String,
    /// Operator.
    pub op: String,
    /// Multiply-accumulates; `None` where unknown.
    pub macs: Option<u64>,
}

/// What an assignment costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The distance of each output.
    pub outputs: Vec<OutputDrift>,
    /// Size of the file.
    pub bytes: u64,
}

impl Measured {
    /// Largest squared relative L2 of an output: errors of layers add up in it, as far as they do not depend on each other.
    pub fn energy(&self) -> f64 {
        worst(&self.outputs).powi(2)
    }
}

/// Largest relative L2 of an output; infinite where one has NaN or infinities that the original has not.
pub(super) fn worst(outputs: &[OutputDrift]) -> f64 {
    let of = |o: &OutputDrift| if o.non_finite > 0 { f64::INFINITY } else { o.relative_l2 };
    outputs.iter().map(of).fold(0.0, f64::max)
}

/// The model quantized so, and how far its outputs are from the original's.
pub(super) fn quantized_drift(
    original: &Model,
    step: &QuantizeStep,
    data: &Dataset,
    batch: usize,
) -> Result<(Model, Vec<OutputDrift>)> {
    let mut model = original.clone();
    quantize(&mut model, step, &PassContext::default(), None, &Silent)?;
    let outputs = drift::compare(original, &model, data, batch, &|| {})?;
    Ok((model, outputs))
}

/// A model with its data.
pub struct Trial<'a> {
    original: &'a Model,
    step: &'a QuantizeStep,
    data: Dataset,
    batch: usize,
    /// Layers of the main graph that the step quantizes, in execution order.
    pub layers: Vec<Layer>,
    /// Layers without a name of their own: no option can name them.
    pub unnamed: usize,
    /// The model as the layers are found in it.
    pub prepared: Model,
    /// Of the layers that compute in integers: layer, weight, and the axis of its output channels.
    weights: Vec<(String, ValueId, usize)>,
}

/// What rounding does to the weight of a layer.
pub struct RoundingError {
    /// The layer.
    pub layer: String,
    /// Its weight.
    pub parameter: String,
    /// Per element, squared.
    pub squares: Vec<f32>,
}

impl<'a> Trial<'a> {
    /// Looks for the layers.
    ///
    /// # Errors
    /// As quantization; data that do not fit.
    pub fn new(original: &'a Model, step: &'a QuantizeStep, judge: &ValidateStep) -> Result<Self> {
        let judge = ValidateStep { samples: judge.samples.or(Some(PROBE_SAMPLES)), ..judge.clone() };
        let data =
            open_data(&original.graph, &judge, Fallback { data: step.data.as_deref(), state: Some(&step.state) })?;
        let batch = judge.batch.unwrap_or(DEFAULT_BATCH);
        let mut model = original.clone();
        let done = quantize(&mut model, step, &PassContext::default(), None, &Silent)?;
        let (graph, structure) = (&done.prepared.graph, &done.plan.structure);
        let mut seen = BTreeSet::new();
        let twice: BTreeSet<&str> = graph.nodes().map(|n| &*graph.node(n).name).filter(|n| !seen.insert(*n)).collect();
        let contexts = crate::analysis::shapes::Contexts::new(&done.prepared, graph);
        let (mut layers, mut weights, mut unnamed) = (vec![], vec![], 0);
        for &id in &structure.order {
            if !matches!(structure.decision(id), Decision::Integer(Kind::Compute(_)) | Decision::Stored) {
                continue;
            }
            let node = graph.node(id);
            if node.name.is_empty() || twice.contains(&*node.name) {
                unnamed += 1;
                continue;
            }
            let macs = crate::analysis::cost::node_macs(&contexts, graph, id);
            if let Decision::Integer(Kind::Compute(role)) = structure.decision(id) {
                let weight = graph.input(id, role.weight);
                weights.extend(weight.map(|w| (node.name.to_string(), w, role.weight_axis)));
            }
            layers.push(Layer { name: node.name.to_string(), op: node.op.to_string(), macs });
        }
        Ok(Self { original, step, data, batch, layers, unnamed, prepared: done.prepared, weights })
    }

    /// What the data are.
    pub fn data(&self) -> &Dataset {
        &self.data
    }

    /// What rounding to the nearest code does to the weight of each layer.
    ///
    /// # Errors
    /// NaN or infinity in a weight.
    pub fn rounding_errors(&self) -> Result<Vec<RoundingError>> {
        let graph = &self.prepared.graph;
        let mut found = vec![];
        for (layer, weight, axis) in &self.weights {
            let Some(tensor) = graph.constant(*weight) else { continue };
            let rounded = quantize_weight(tensor, *axis, None, 0.0, &self.step.options)?;
            let (codes, inner) = (rounded.data.to_i64()?, tensor.dims[axis + 1..].iter().product::<usize>().max(1));
            let values = codes.iter().enumerate().map(|(k, &q)| rounded.real(k / inner % tensor.dims[*axis], q));
            let squares = values.zip(tensor.to_f32()?).map(|(q, w)| (q - f64::from(w)).powi(2) as f32).collect();
            let parameter = graph.name(*weight).to_string();
            found.push(RoundingError { layer: layer.clone(), parameter, squares });
        }
        Ok(found)
    }

    /// Number of samples compared on, and whether they are made up.
    pub fn samples(&self) -> (usize, bool) {
        (self.data.len(), self.data.is_random())
    }

    /// Quantizes with the precisions and executes the result.
    ///
    /// # Errors
    /// As quantization and comparison.
    pub fn measure(&self, assignment: &Assignment) -> Result<Measured> {
        let mut step = self.step.clone();
        step.options.nodes.extend(assignment.iter().map(|(name, p)| (pattern(name), *p)));
        let (model, outputs) = quantized_drift(self.original, &step, &self.data, self.batch)?;
        Ok(Measured { outputs, bytes: io::encoded_size(&model)? })
    }

    /// All layers in `all`, but for one.
    pub fn only(&self, all: Precision, name: &str, one: Precision) -> Assignment {
        let other = |l: &Layer| (l.name.clone(), if l.name == name { one } else { all });
        self.layers.iter().map(other).collect()
    }

    /// An error where there is nothing to try.
    pub fn check(&self) -> Result<()> {
        if self.layers.is_empty() {
            return Err(Error::unsupported("no layer with a name of its own can be quantized"));
        }
        Ok(())
    }
}

/// The name as a pattern that matches it alone.
pub fn pattern(name: &str) -> String {
    let plain = !name.contains(['*', '?', '[', ']', '{', '}', '\\', '!']);
    if plain { name.to_string() } else { globset::escape(name) }
}
