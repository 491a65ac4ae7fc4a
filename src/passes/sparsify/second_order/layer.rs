//! A layer of a model as least squares problems, and back.

use super::super::layers::SparseLayer;
use super::super::magnitude::{smallest_of, with_zeros};
use super::super::options::{Goal, SparsifyOptions};
use super::choose::{Curve, Quota, curve, solve};
use super::problem::Problem;
use super::shape::Shape;
use crate::calibrate::{Gram, Regression};
use crate::error::{Context, Error, Result};
use crate::ir::{Graph, Model};
use crate::passes::{Linear, Patch};

/// A layer that is fitted, the form of its zeros, and how many there are to be.
#[derive(Clone, Debug)]
pub struct FitLayer {
    /// The layer.
    pub linear: Linear,
    /// The form of its zeros.
    pub shape: Shape,
    /// How many.
    pub quota: Quota,
}

impl FitLayer {
    /// By the options; `goal` is theirs.
    ///
    /// # Errors
    /// A weight that is no float.
    pub fn new(graph: &Graph, linear: Linear, goal: Goal, options: &SparsifyOptions) -> Result<Self> {
        let t = graph.constant(linear.weight).ok_or_else(|| Error::internal("the weight of a layer is gone"))?;
        let pattern = if let Goal::Pattern(p) = goal { Some(p) } else { None };
        let shape = Shape::new(t.dims[linear.axes.1], t.dims.iter().skip(2).product(), options.block, pattern);
        let quota = match goal {
            Goal::Sparsity(share) => Quota::Share(share),
            Goal::Pattern(_) => Quota::Runs,
            Goal::Threshold(limit) => Quota::Given(linear.rows(graph)?.iter().map(|x| x.abs() < limit).collect()),
        };
        Ok(Self { linear, shape, quota })
    }

    /// Without other zeros than those that are there.
    ///
    /// # Errors
    /// A weight that is no float.
    pub fn with_its_zeros(graph: &Graph, linear: Linear) -> Result<Self> {
        let rows = linear.rows(graph)?;
        let columns = linear.columns(graph);
        let quota = Quota::Given(rows.iter().map(|&x| x == 0.0).collect());
        Ok(Self { linear, shape: Shape::new(columns, 1, None, None), quota })
    }

    fn outputs(&self, graph: &Graph) -> usize {
        self.linear.outputs(graph).unwrap_or(0)
    }

    /// What zeros would cost in the model that the statistics are of.
    ///
    /// # Errors
    /// Statistics of another layer, or with NaN or infinity.
    pub fn curve(&self, graph: &Graph, gram: &Gram) -> Result<Curve> {
        let (rows, outputs) = (self.linear.rows(graph)?, self.outputs(graph));
        let gains = self.linear.gains(graph, outputs);
        let n = outputs / gram.groups.max(1);
        let problem = |g: usize| {
            let w = &rows[g * n * gram.size..][..n * gram.size];
            Problem::to_stay(gram, g, w, &gains[g * n..][..n], self.linear.centred())
        };
        let problems: Vec<Problem> = (0..gram.groups).map(problem).collect::<Result<_>>()?;
        Ok(curve(&problems, &self.shape))
    }

    /// Gives the layer its zeros, and fits what stays, and what takes up a shift, to the outputs that `sums` hold.
    ///
    /// # Errors
    /// As [`FitLayer::curve`].
    pub fn fit(&self, model: &mut Model, sums: &Regression) -> Result<()> {
        let (linear, gram, graph) = (&self.linear, &sums.gram, &model.graph);
        if gram.count == 0 {
            return Ok(());
        }
        let (rows, outputs) = (linear.rows(graph)?, self.outputs(graph));
        if rows.len() != outputs * gram.size || sums.outputs * gram.groups != outputs {
            return Err(Error::internal("statistics of another layer"));
        }
        let (gains, offsets) = (linear.gains(graph, outputs), linear.offsets(graph, outputs)?);
        let n = sums.outputs;
        let problem = |g: usize| {
            let (w, range) = (&rows[g * n * gram.size..][..n * gram.size], g * n..(g + 1) * n);
            Problem::to_give(sums, g, w, &gains[range.clone()], (&offsets[range], linear.centred()))
        };
        let problems: Vec<Problem> = (0..gram.groups).map(problem).collect::<Result<_>>()?;
        let new = solve(&problems, &self.shape, &self.quota);
        let mut shifts = Vec::with_capacity(outputs);
        for g in 0..gram.groups {
            let (wanted, mean) = (sums.mean(g), gram.mean(g));
            for (o, wanted) in (g * n..).zip(wanted) {
                let given: f64 = new[o * gram.size..].iter().zip(&mean).map(|(w, m)| w * m).sum();
                shifts.push(wanted - given - offsets[o]);
            }
        }
        let mut patch = Patch::default();
        let weight = linear.tensor(graph, new.into_iter().map(|x| x as f32).collect())?;
        patch.set_value(linear.weight, graph.ty(linear.weight).cloned(), Some(weight));
        linear.shift(graph, &shifts, &mut patch)?;
        patch.apply(&mut model.graph)
    }
}

/// Zeros by magnitude in weights that cannot be fitted, each on its own.
///
/// # Errors
/// Weights that are no numbers.
pub fn zero_rest(model: &mut Model, layers: &[SparseLayer], goal: Goal, options: &SparsifyOptions) -> Result<()> {
    let graph = &model.graph;
    let mut patch = Patch::default();
    for layer in layers {
        let Some(t) = graph.constant(layer.weight) else { continue };
        let data = t.to_f32().context(|| format!("\"{}\"", graph.name(layer.weight)))?;
        let zeroed = with_zeros(t, &smallest_of(t, &data, layer, goal, options.block))?;
        patch.set_value(layer.weight, graph.ty(layer.weight).cloned(), Some(zeroed));
    }
    patch.apply(&mut model.graph)
}
