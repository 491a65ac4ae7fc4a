//! Which weights are stored in few bits, in which grid, and why the others are not.

use super::super::options::QuantizeOptions;
use super::super::rounding::{Evidence, Levels, Partition, Rounded, Rows, bias_correction, round};
use super::super::selection::Selection;
use super::site::Site;
use crate::analysis::shapes::Contexts;
use crate::calibrate::Gram;
use crate::error::{Context, Error, Result};
use crate::ir::{DType, Graph, Model, NodeId, Port, Tensor, Use, ValueId};
use crate::math::Unfold;
use crate::ops;
use crate::ops::spec::{Purpose, WeightRole};
use std::collections::{HashMap, HashSet};

/// Bytes that the nodes which dequantize one weight take in the file, roughly.
const OVERHEAD: usize = 256;

/// Why a weight that would not shrink stays.
pub const SMALL: &str = "its weight is small";

/// Which weights are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reached {
    /// All.
    All,
    /// Tables of embeddings only: static quantization does the rest.
    Tables,
}

/// Statistics that are wanted: of which value, in which form.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GramKey {
    /// Name of the layers' input.
    pub input: String,
    /// How they see it.
    pub unfold: Unfold,
}

/// A weight that is to be stored in few bits.
pub struct PlannedWeight {
    /// The constant.
    pub value: ValueId,
    /// Its shape.
    pub dims: Vec<usize>,
    /// Axes, slot and purpose; the same for all uses but the slots of the inputs.
    pub role: WeightRole,
    /// The nodes that use it so.
    pub uses: Vec<NodeId>,
    /// Elements of the block axis that share a scale; `None` for one scale per channel.
    pub block: Option<usize>,
    /// The levels.
    pub levels: Levels,
    /// Codes and scales, once they are made.
    pub rounded: Option<Rounded>,
    /// The bias that takes up the mean error, and what is added to it.
    pub correction: Option<(Site, Vec<f32>)>,
}

/// What becomes of a weight.
enum Planned {
    Few(Box<PlannedWeight>),
    /// It stays as it is, and why.
    Float(String),
}

/// Decisions for the main graph.
pub struct WeightPlan {
    /// What is stored in few bits.
    pub weights: Vec<PlannedWeight>,
    /// Nodes with a weight that stays as it is, and why.
    pub skipped: Vec<(NodeId, String)>,
    /// The options it was made with.
    pub options: QuantizeOptions,
}

impl WeightPlan {
    /// Decides for every node of the main graph.
    ///
    /// # Errors
    /// A cycle, an invalid pattern.
    pub fn draft(model: &Model, options: &QuantizeOptions, reached: Reached) -> Result<Self> {
        let graph = &model.graph;
        let (contexts, selection) = (Contexts::new(model, graph), Selection::new(options)?);
        let mut plan = Self { weights: vec![], skipped: vec![], options: options.clone() };
        let mut found: Vec<(NodeId, WeightRole, ValueId)> = vec![];
        for id in graph.order()? {
            let Some(role) = ops::spec(&graph.node(id).op).and_then(|spec| spec.weight(&contexts.of(id))) else {
                continue;
            };
            let table = matches!(role.purpose, Purpose::Table { .. });
            if reached == Reached::Tables && !table {
                continue;
            }
            let refused = selection.refuses(graph.node(id)).map(str::to_string);
            match candidate(graph, id, &role) {
                Ok(None) => {}
                Ok(Some(value)) if refused.is_none() => found.push((id, role, value)),
                Ok(Some(_)) => plan.skipped.extend(refused.map(|why| (id, why))),
                Err(why) => plan.skipped.push((id, refused.unwrap_or(why))),
            }
        }
        plan.group(graph, found)?;
        Ok(plan)
    }

    /// Joins the uses of one weight, and leaves out weights that must also stay in float.
    fn group(&mut self, graph: &Graph, found: Vec<(NodeId, WeightRole, ValueId)>) -> Result<()> {
        let planned: HashSet<(NodeId, usize)> = found.iter().map(|(id, role, _)| (*id, role.slot)).collect();
        let mut place: HashMap<(ValueId, usize, usize, bool), usize> = HashMap::new();
        for (id, role, value) in found {
            let stays = |u: &Use| !matches!(u.port, Port::In(slot) if planned.contains(&(u.node, slot as usize)));
            if let Some(other) = graph.uses(value).iter().find(|u| stays(u)) {
                let by = graph.node(other.node).label();
                self.skipped.push((id, format!("its weight is also used in float, by {by}")));
                continue;
            }
            let table = matches!(role.purpose, Purpose::Table { .. });
            let key = (value, role.channel_axis, role.block_axis, table);
            if let Some(&k) = place.get(&key) {
                self.weights[k].uses.push(id);
                continue;
            }
            match self.planned(graph, id, role, value)? {
                Planned::Few(weight) => {
                    place.insert(key, self.weights.len());
                    self.weights.push(*weight);
                }
                Planned::Float(why) => self.skipped.push((id, why)),
            }
        }
        Ok(())
    }

    fn planned(&self, graph: &Graph, id: NodeId, role: WeightRole, value: ValueId) -> Result<Planned> {
        let tensor = graph.constant(value).ok_or_else(|| Error::internal("a weight that is not constant"))?;
        let dims = tensor.dims.clone();
        if role.channel_axis >= dims.len() || role.block_axis >= dims.len() || role.channel_axis == role.block_axis {
            return Ok(Planned::Float(format!("its weight has the shape {dims:?}")));
        }
        let data = tensor.to_f32()?;
        if let Some(at) = data.iter().position(|x| !x.is_finite()) {
            let error = Error::invalid(format!("\"{}\" holds {} at position {at}", graph.name(value), data[at]));
            return Err(error).context(|| graph.node(id).label());
        }
        let table = matches!(role.purpose, Purpose::Table { .. });
        let levels = if table { table_levels(&self.options) } else { Levels::of(&self.options) };
        let block = self.options.block().filter(|&b| b < dims[role.block_axis]);
        let uses = vec![id];
        let planned = PlannedWeight { value, dims, role, uses, block, levels, rounded: None, correction: None };
        let (before, after) = (tensor.stored_bytes(), planned.bytes(self.options.weight_bits));
        if after >= before {
            return Ok(Planned::Float(format!("{SMALL}: {before} bytes would become {after}")));
        }
        Ok(Planned::Few(Box::new(planned)))
    }

    /// Statistics that rounding wants, each once.
    pub fn wanted(&self, graph: &Graph) -> Vec<(GramKey, usize)> {
        let mut seen = HashSet::new();
        let all = self.weights.iter().flat_map(|w| w.keys(graph).into_iter().map(|key| (key, w.columns())));
        all.filter(|(key, _)| seen.insert(key.clone())).collect()
    }

    /// Rounds those weights of which every statistic is among `grams`, or to the nearest levels those that want none;
    /// returns how many it rounded.
    ///
    /// # Errors
    /// Statistics of another layer.
    pub fn round(&mut self, graph: &Graph, grams: &HashMap<GramKey, Gram>, feedback: bool) -> Result<usize> {
        let mut count = 0;
        for w in self.weights.iter_mut().filter(|w| w.rounded.is_none()) {
            let keys = if feedback { w.keys(graph) } else { vec![] };
            let Some(found) = keys.iter().map(|k| grams.get(k)).collect::<Option<Vec<&Gram>>>() else { continue };
            w.round(graph, &found).context(|| format!("weight \"{}\"", graph.name(w.value)))?;
            count += 1;
        }
        Ok(count)
    }
}

/// Tables of few bits have zero points of their own: rows are not centred, and nobody multiplies integers with them. In
/// 8 bits they are signed, which needs no zero point to be stored.
fn table_levels(options: &QuantizeOptions) -> Levels {
    let symmetric = options.weight_bits == 8 && options.symmetric_weights;
    let weights = if symmetric { super::super::options::Eight::S8 } else { super::super::options::Eight::U8 };
    Levels::new(options.weight_bits, weights, symmetric)
}

/// The constant that the node's role is about; `None` where it has no business with weights.
fn candidate(graph: &Graph, id: NodeId, role: &WeightRole) -> std::result::Result<Option<ValueId>, String> {
    let table = matches!(role.purpose, Purpose::Table { .. });
    let Some(value) = graph.input(id, role.slot) else { return Ok(None) };
    let Some(tensor) = graph.constant(value) else {
        let made_by = graph.producer(value).map(|(p, _)| &graph.node(p).op);
        let overridable = graph.is_input(value) && graph.value(value).init.is_some();
        return match made_by {
            _ if overridable => Err("its weight is a graph input, which a caller may feed".into()),
            Some(op) if op.is("DequantizeLinear") => Err("it is quantized already".into()),
            _ if table => Ok(None),
            _ => Err("its weight is not a constant".into()),
        };
    };
    match tensor.dtype {
        DType::F32 if graph.is_output(value) => Err("its weight is a graph output".into()),
        DType::F32 if tensor.is_empty() => Err("its weight is empty".into()),
        DType::F32 => Ok(Some(value)),
        t if t.is_float() => Err(format!("its weight is {t}; only float is quantized")),
        _ => Ok(None),
    }
}

impl PlannedWeight {
    /// Whether rows are picked from it.
    pub fn is_table(&self) -> bool {
        matches!(self.role.purpose, Purpose::Table { .. })
    }

    /// Elements that one output sums over.
    pub fn columns(&self) -> usize {
        self.dims.iter().product::<usize>() / self.dims[self.role.channel_axis].max(1)
    }

    /// Which columns share a scale.
    pub fn partition(&self) -> Partition {
        match self.block {
            None => Partition::whole(self.columns()),
            Some(block) => Partition::blocks(&self.dims, self.role.channel_axis, self.role.block_axis, block),
        }
    }

    /// Shape of scales in blocks.
    pub fn scale_dims(&self) -> Vec<usize> {
        let mut dims = self.dims.clone();
        if let Some(block) = self.block {
            dims[self.role.block_axis] = dims[self.role.block_axis].div_ceil(block);
        }
        dims
    }

    /// Bytes that it takes in the file in `bits` bits, with what dequantizes it.
    fn bytes(&self, bits: u8) -> usize {
        let stored = if bits == 8 { 8 } else { 4 };
        let channels = self.dims[self.role.channel_axis];
        let scales = self.block.map_or(channels, |_| self.scale_dims().iter().product());
        let elements: usize = self.dims.iter().product();
        elements.saturating_mul(stored) / 8 + scales * 4 + OVERHEAD
    }

    /// Statistics of the inputs of its uses; none for tables.
    fn keys(&self, graph: &Graph) -> Vec<GramKey> {
        let Purpose::Product(Some((slot, unfold))) = &self.role.purpose else { return vec![] };
        let key = |&id: &NodeId| {
            let input = graph.input(id, *slot).filter(|&v| graph.value(v).init.is_none())?;
            Some(GramKey { input: graph.name(input).to_string(), unfold: unfold.clone() })
        };
        self.uses.iter().map(key).collect::<Option<_>>().unwrap_or_default()
    }

    fn round(&mut self, graph: &Graph, grams: &[&Gram]) -> Result<()> {
        let tensor = graph.constant(self.value).map(Tensor::to_f32).transpose()?;
        let data = tensor.ok_or_else(|| Error::internal("a weight that is not constant"))?;
        let rows = Rows::of(&data, &self.dims, self.role.channel_axis);
        let partition = self.partition();
        let merged = match grams {
            [] => None,
            [one] => Some((*one).clone()),
            [first, rest @ ..] => {
                let mut sum = (*first).clone();
                rest.iter().try_for_each(|g| sum.merge(g))?;
                Some(sum)
            }
        };
        // A bias of its own takes up the mean error of a layer, where it has one.
        let site = match &self.uses[..] {
            [only] if !grams.is_empty() => Site::of(graph, *only, self.dims[self.role.channel_axis]),
            _ => None,
        };
        let evidence = merged.as_ref().map(|gram| Evidence { gram, centred: site.is_some() });
        let rounded = round(&rows, &partition, &self.levels, evidence, None)?;
        self.correction = match (site, &merged) {
            (Some(site), Some(gram)) => Some((site, bias_correction(&rows, &rounded, &partition, gram))),
            _ => None,
        };
        self.rounded = Some(rounded);
        Ok(())
    }
}
