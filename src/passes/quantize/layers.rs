//! Rounding the weights of integer layers with the calibration data in view.

use super::plan::{Plan, RoundedLayer};
use super::rounding::{Evidence, Levels, Partition, Rows, bias_correction, round};
use super::structure::Kind;
use super::weight_only::GramKey;
use super::weights::least_scales;
use crate::analysis::shapes::Contexts;
use crate::calibrate::Gram;
use crate::error::{Context, Error, Result};
use crate::ir::{Graph, Model, NodeId, Tensor, ValueId};
use crate::ops;
use crate::ops::spec::{ComputeRole, Purpose};
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

/// The integer layers of a plan whose weights are to be rounded, those with one weight together.
pub struct LayerPlan {
    groups: Vec<Group>,
}

/// Layers that share a weight, along one axis.
struct Group {
    weight: ValueId,
    axis: usize,
    dims: Vec<usize>,
    layers: Vec<(NodeId, ComputeRole)>,
    /// Statistics of each layer's input; `None` where no form of it is known.
    keys: Option<Vec<GramKey>>,
}

impl LayerPlan {
    /// The layers of a plan for `model`.
    pub fn of(model: &Model, plan: &Plan) -> Self {
        let graph = &model.graph;
        let contexts = Contexts::new(model, graph);
        let mut groups: Vec<Group> = vec![];
        let mut place: HashMap<(ValueId, usize), usize> = HashMap::new();
        for (id, kind) in plan.structure.integer_nodes() {
            let Kind::Compute(role) = kind else { continue };
            let Some(weight) = graph.input(id, role.weight) else { continue };
            let Some(tensor) = graph.constant(weight) else { continue };
            let key = || {
                let purpose = ops::spec(&graph.node(id).op)?.weight(&contexts.of(id))?.purpose;
                let Purpose::Product(Some((slot, unfold))) = purpose else { return None };
                Some(GramKey { input: graph.name(graph.input(id, slot)?).to_string(), unfold })
            };
            let at = *place.entry((weight, role.weight_axis)).or_insert_with(|| {
                let (axis, dims) = (role.weight_axis, tensor.dims.clone());
                groups.push(Group { weight, axis, dims, layers: vec![], keys: Some(vec![]) });
                groups.len() - 1
            });
            let group = &mut groups[at];
            group.layers.push((id, role.clone()));
            group.keys = group.keys.take().zip(key()).map(|(mut keys, key)| {
                keys.push(key);
                keys
            });
        }
        Self { groups }
    }

    /// Statistics that rounding wants, each once, with the size of its columns.
    pub fn wanted(&self) -> Vec<(GramKey, usize)> {
        let mut wanted: Vec<(GramKey, usize)> = vec![];
        for group in &self.groups {
            let columns = group.dims.iter().product::<usize>() / group.dims[group.axis].max(1);
            for key in group.keys.iter().flatten() {
                if !wanted.iter().any(|(k, _)| k == key) {
                    wanted.push((key.clone(), columns));
                }
            }
        }
        wanted
    }

    /// Rounds the weights of which every statistic is among `grams`, and those that have none where `grams` is empty.
    ///
    /// # Errors
    /// Statistics of another layer; NaN or infinity in a bias.
    pub fn round(&self, graph: &Graph, plan: &mut Plan, grams: &HashMap<GramKey, Gram>) -> Result<()> {
        let ready = self.groups.iter().filter_map(|group| {
            let keys = group.keys.as_deref().filter(|_| !grams.is_empty()).unwrap_or(&[]);
            let found = keys.iter().map(|k| grams.get(k)).collect::<Option<Vec<&Gram>>>()?;
            let done = group.layers.iter().any(|(id, _)| plan.rounded(*id).is_some());
            (!done && (grams.is_empty() || group.keys.is_none() || !found.is_empty())).then_some((group, found))
        });
        let ready: Vec<(&Group, Vec<&Gram>)> = ready.collect();
        let made: Result<Vec<Vec<(NodeId, RoundedLayer)>>> = ready
            .par_iter()
            .map(|(group, found)| {
                group.round(graph, plan, found).context(|| format!("weight \"{}\"", graph.name(group.weight)))
            })
            .collect();
        made?.into_iter().flatten().for_each(|(id, layer)| plan.set_rounded(id, layer));
        Ok(())
    }
}

impl Group {
    fn round(&self, graph: &Graph, plan: &Plan, grams: &[&Gram]) -> Result<Vec<(NodeId, RoundedLayer)>> {
        let tensor = graph.constant(self.weight).ok_or_else(|| Error::internal("a weight that is not constant"))?;
        let rows = Rows::of(&tensor.to_f32()?, &self.dims, self.axis);
        let partition = Partition::whole(rows.columns);
        let mut merged = grams.first().map(|g| (*g).clone());
        if let Some(sum) = &mut merged {
            grams[1..].iter().try_for_each(|g| sum.merge(g))?;
        }
        // A bias takes up the mean error; QLinearMatMul has none.
        let corrects = |role: &ComputeRole| plan.options.bias_correction && role.bias.is_some();
        let centred = self.layers.len() == 1 && corrects(&self.layers[0].1);
        let mut least = vec![0f32; rows.rows];
        for (id, role) in &self.layers {
            let bias = role.bias.and_then(|slot| graph.input(*id, slot)).and_then(|b| graph.constant(b));
            let Some(bias) = bias.map(Tensor::to_f32).transpose()? else { continue };
            let x = graph.input(*id, role.activation).and_then(|x| plan.quantization(x));
            let scale = x.map_or(1.0, |q| q.scale);
            least.iter_mut().zip(least_scales(&bias, scale)).for_each(|(l, s)| *l = l.max(s));
        }
        let evidence = merged.as_ref().map(|gram| Evidence { gram, centred });
        let bits = self.layers.iter().map(|(id, _)| plan.weight_bits(*id)).max().unwrap_or(8);
        let levels = Levels::with_bits(&plan.options, bits);
        let weight = Arc::new(round(&rows, &partition, &levels, evidence, Some(&least))?);
        let layer = |(k, (id, role)): (usize, &(NodeId, ComputeRole))| {
            let gram = grams.get(k).filter(|_| corrects(role));
            let correction = gram.map(|gram| bias_correction(&rows, &weight, &partition, gram));
            (*id, RoundedLayer { weight: weight.clone(), correction })
        };
        Ok(self.layers.iter().enumerate().map(layer).collect())
    }
}
