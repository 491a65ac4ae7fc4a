//! What channels are worth to the layers that take them, by second-order information.

use super::importance::{Importance, Measure, Norm};
use crate::analysis::axis_groups::{AxisGroups, Group, Role};
use crate::analysis::shapes::Contexts;
use crate::calibrate::Gram;
use crate::error::Result;
use crate::ir::Model;
use crate::passes::Linear;
use crate::passes::sparsify::second_order::{Problem, Removal};
use std::collections::HashMap;

/// Scores by group name; other groups go by the norm of their weights, as a share of the whole.
#[derive(Default)]
pub struct Saliencies {
    by_group: HashMap<String, Vec<f64>>,
}

/// The layers that take a group's channels and can be fitted: one group of inputs each, a float weight of their own.
pub fn takers(model: &Model, groups: &AxisGroups, group: &Group) -> Vec<Linear> {
    let contexts = Contexts::new(model, &model.graph);
    let mut found: Vec<Linear> = vec![];
    for t in groups.tied.iter().filter(|t| t.role == Role::Takes && group.axes.contains(&t.place)) {
        let layer = Linear::of(&contexts, &model.graph, t.node).filter(|l| l.groups() == 1);
        let Some(layer) = layer.filter(|l| l.weight == t.place.value && l.axes.1 == t.place.axis) else { continue };
        if found.iter().all(|l| l.weight != layer.weight) {
            found.push(layer);
        }
    }
    found
}

/// One layer while channels are removed.
struct Taker {
    removal: Removal,
    /// Columns of each class.
    columns: Vec<Vec<usize>>,
    /// What its outputs vary by.
    energy: f64,
}

impl Taker {
    fn new(model: &Model, group: &Group, layer: &Linear, gram: &Gram) -> Result<Option<Self>> {
        let graph = &model.graph;
        let at = group.axes.iter().position(|p| p.value == layer.weight && p.axis == layer.axes.1);
        let (Some(at), Some(t)) = (at, graph.constant(layer.weight)) else { return Ok(None) };
        if gram.count == 0 {
            return Ok(None);
        }
        let (outputs, taps) = (t.dims[layer.axes.0], t.dims.iter().skip(2).product::<usize>());
        let gains = layer.gains(graph, outputs);
        let problem = Problem::to_stay(gram, 0, &layer.rows(graph)?, &gains, layer.centred())?;
        let optimum = problem.optimum();
        let energy = problem.energy(&optimum);
        let n = problem.columns;
        let weighed: Vec<f64> = optimum.iter().enumerate().map(|(k, w)| w * gains[k / n].sqrt()).collect();
        let of = |k: &u32| (*k as usize * taps..(*k as usize + 1) * taps).collect::<Vec<usize>>();
        let columns = group.classes.iter().map(|c| c.members[at].iter().flat_map(of).collect()).collect();
        Ok(Some(Self { removal: Removal::new(&weighed, n, &problem.inverse), columns, energy }))
    }

    fn loss(&self, class: usize) -> f64 {
        f64::from(self.removal.loss(&self.columns[class])) / self.energy.max(f64::MIN_POSITIVE)
    }
}

impl Saliencies {
    /// Keeps the scores of a group.
    pub fn insert(&mut self, group: &Group, scores: Vec<f64>) {
        self.by_group.insert(group.name.clone(), scores);
    }
}

/// Scores a group's channels: they are removed one after the other, least loss first, and the score is the share of the
/// outputs' variance that is lost with each, given the best fit of the weights that take those left (Hassibi and Stork,
/// Optimal Brain Surgeon, 1993, for all weights of a channel together), summed over the layers; never less than that of
/// those before it. `layers` are those of [`takers`] with the statistics of their inputs; `None` where there are none.
///
/// # Errors
/// Statistics of another layer, or with NaN or infinity.
pub fn removal_scores(model: &Model, group: &Group, layers: &[(Linear, Gram)]) -> Result<Option<Vec<f64>>> {
    let mut takers = vec![];
    for (layer, gram) in layers {
        takers.extend(Taker::new(model, group, layer, gram)?);
    }
    if takers.is_empty() {
        return Ok(None);
    }
    let mut left: Vec<usize> = (0..group.classes.len()).collect();
    let mut scores = vec![0f64; left.len()];
    let mut most = 0f64;
    loop {
        let losses = left.iter().enumerate().map(|(k, &c)| (k, takers.iter().map(|t| t.loss(c)).sum::<f64>()));
        let least = losses.min_by(|a, b| a.1.total_cmp(&b.1).then(left[a.0].cmp(&left[b.0])));
        let Some((k, loss)) = least else { return Ok(Some(scores)) };
        let class = left.swap_remove(k);
        most = most.max(loss);
        scores[class] = most;
        for t in &mut takers {
            t.columns[class].iter().for_each(|&c| t.removal.remove(c));
        }
    }
}

impl Importance for Saliencies {
    fn scores(&self, model: &Model, groups: &AxisGroups, group: &Group) -> Result<Vec<f64>> {
        if let Some(scores) = self.by_group.get(&group.name) {
            return Ok(scores.clone());
        }
        let norms = Norm { measure: Measure::L2, seed: 0 }.scores(model, groups, group)?;
        let energy = norms.iter().map(|x| x * x).sum::<f64>().max(f64::MIN_POSITIVE);
        Ok(norms.into_iter().map(|x| x * x / energy).collect())
    }

    fn comparable(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::axis_groups::axis_groups;
    use crate::io::text;

    /// Channels 0 and 1 of the hidden layer are the same: together they are worth much, the second of them nothing.
    #[test]
    fn what_others_can_stand_in_for_is_worth_nothing() {
        let source = "<ir_version: 8, opset_import: [\"\" : 17]>
            agraph (float[N,3] x) => (float[N,2] y)
            <float[3,3] a = {1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.5, 0.5, 0.2}, float[3,2] b = {3.0, 2.0, 3.0, 2.0, 0.5, 0.4}>
            { h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) }";
        let mut model = text::parse_model(source).unwrap();
        let groups = axis_groups(&mut model, false).unwrap();
        let group = groups.groups.iter().find(|g| g.barrier.is_none()).unwrap();
        let layers = takers(&model, &groups, group);
        assert_eq!(layers.len(), 1);
        let mut gram = Gram::new(layers[0].unfold.clone());
        let x: Vec<f32> = (0..300).map(|k| ((k * k % 97) as f32 * 0.31).sin().max(0.0)).collect();
        let hidden: Vec<f32> = x.chunks(2).flat_map(|p| [p[0], p[0], p[1]]).collect();
        gram.add(&hidden, &[150, 3]).unwrap();
        gram.finish();
        let scores = removal_scores(&model, group, &[(layers[0].clone(), gram)]).unwrap().unwrap();
        assert!(scores[0] < 1e-2 && scores[2] > scores[0] && scores[1] > 10.0 * scores[2], "{scores:?}");
    }
}
