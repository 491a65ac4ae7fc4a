//! Repair without gradients: the weights that take the channels that stay are fitted to what all channels gave.

use super::slice::Cut;
use crate::analysis::axis_groups::{AxisGroups, Place, Role};
use crate::analysis::shapes::Contexts;
use crate::calibrate::Gram;
use crate::error::{Error, Result};
use crate::ir::{DType, Graph, Model, Tensor, ValueId};
use crate::math::{cholesky, matmul};
use crate::passes::Patch;
use crate::passes::linear::Linear;

/// Added to the diagonal of the normal equations, as a share of its mean.
const DAMPING: f64 = 1e-3;

/// The layers that a cut takes input channels from and that can be refitted: one group, a float weight of their own.
pub fn refit_layers(model: &Model, groups: &AxisGroups, cut: &Cut) -> Vec<Linear> {
    let graph = &model.graph;
    let contexts = Contexts::new(model, graph);
    let mut found: Vec<Linear> = vec![];
    for t in groups.tied.iter().filter(|t| t.role == Role::Takes && cut.kept.contains_key(&t.place)) {
        let layer = Linear::of(&contexts, graph, t.node).filter(|l| l.groups() == 1);
        let Some(layer) = layer.filter(|l| l.weight == t.place.value && l.axes.1 == t.place.axis) else { continue };
        if found.iter().all(|l| l.weight != layer.weight) {
            found.push(layer);
        }
    }
    found
}

/// Fits the weight's kept columns so that the layer gives, on the data of `gram`, what it gave with all of them, in the
/// least squares sense: `W' = W_S + W_R C_RS (C_SS + damping)^-1`, where `S` are the columns that stay and `R` those that
/// go, and `C` the covariance of the columns where a bias (or the mean of a BatchNormalization) can take up the rest, else
/// their second moments (He et al., Channel Pruning for Accelerating Very Deep Neural Networks, 2017, section 3.1).
///
/// The model keeps its shapes: cut it afterwards.
///
/// # Errors
/// Statistics that do not belong to the layer.
pub fn refit(model: &mut Model, layer: &Linear, gram: &Gram, cut: &Cut) -> Result<()> {
    let graph = &model.graph;
    let (outer, inner) = layer.axes;
    let misfit = || Error::internal("statistics that do not belong to the layer");
    let t = graph.constant(layer.weight).ok_or_else(misfit)?;
    let kept = cut.kept.get(&Place { value: layer.weight, axis: inner }).ok_or_else(misfit)?;
    let (outputs, inputs) = (t.dims[outer], t.dims[inner]);
    let taps: usize = t.dims.iter().skip(2).product();
    let size = inputs * taps;
    if gram.size != size || gram.count == 0 || t.rank() < 2 || outer.max(inner) != 1 {
        return Err(misfit());
    }
    let mut data = layer.rows(graph)?;
    let at = |o: usize, k: usize| o * size + k;
    let stays: Vec<usize> = kept.iter().flat_map(|c| c * taps..(c + 1) * taps).collect();
    let goes: Vec<usize> = (0..size).filter(|k| kept.binary_search(&(k / taps)).is_err()).collect();
    let centred = layer.centred();
    let (h, n) = (gram.matrix(0), gram.count as f64);
    let mean = if centred { gram.mean(0) } else { vec![0.0; size] };
    let c = |i: usize, j: usize| h[i * size + j] / n - mean[i] * mean[j];
    let (s, r) = (stays.len(), goes.len());
    let removed: Vec<f64> =
        (0..outputs).flat_map(|o| goes.iter().map(move |&k| (o, k))).map(|(o, k)| data[at(o, k)].into()).collect();
    let cross: Vec<f64> = goes.iter().flat_map(|&i| stays.iter().map(move |&j| (i, j))).map(|(i, j)| c(i, j)).collect();
    let mut right = vec![0f64; outputs * s];
    matmul((outputs, r, s), 1.0, (&removed, (r, 1)), (&cross, (s, 1)), 0.0, &mut right);
    let mut factor: Vec<f64> =
        stays.iter().flat_map(|&i| stays.iter().map(move |&j| (i, j))).map(|(i, j)| c(i, j)).collect();
    let diagonal = (0..s).map(|k| factor[k * s + k]).sum::<f64>() / s.max(1) as f64;
    (0..s).for_each(|k| factor[k * s + k] += DAMPING * diagonal + f64::MIN_POSITIVE);
    if !cholesky(&mut factor, s) {
        return Ok(()); // nothing ever came in: there is nothing to fit
    }
    let mut shifts = vec![0f64; outputs];
    for (o, row) in right.chunks_mut(s.max(1)).enumerate() {
        substitute(&factor, s, row);
        let lost: f64 = goes.iter().map(|&k| f64::from(data[at(o, k)]) * mean[k]).sum();
        let gained: f64 = row.iter().zip(&stays).map(|(d, &k)| d * mean[k]).sum();
        shifts[o] = lost - gained;
        for (d, &k) in row.iter().zip(&stays) {
            data[at(o, k)] += *d as f32;
        }
    }
    let mut patch = Patch::default();
    patch.set_value(layer.weight, graph.ty(layer.weight).cloned(), Some(layer.tensor(graph, data)?));
    layer.shift(graph, &shifts, &mut patch)?;
    patch.apply(&mut model.graph)
}

/// Solves `l l^T x = b` in place.
fn substitute(l: &[f64], n: usize, b: &mut [f64]) {
    for i in 0..n {
        let sum: f64 = l[i * n..i * n + i].iter().zip(&*b).map(|(l, x)| l * x).sum();
        b[i] = (b[i] - sum) / l[i * n + i];
    }
    for i in (0..n).rev() {
        b[i] /= l[i * n + i];
        let x = b[i];
        // Row by row, so that memory is read in order.
        l[i * n..i * n + i].iter().zip(&mut *b).for_each(|(l, b)| *b -= l * x);
    }
}

/// What re-estimation sets: a BatchNormalization's statistics, or the bias of a layer.
#[derive(Clone, Debug)]
pub struct Anchor {
    /// The value whose moments count, by name, and its channel axis.
    pub value: (String, usize),
    /// Names of the mean and variance of the BatchNormalization.
    pub statistics: (String, String),
}

fn own_vector(graph: &Graph, v: ValueId) -> bool {
    graph.use_count(v) == 1 && graph.constant(v).is_some_and(|t| t.dtype == DType::F32 && t.rank() == 1)
}

/// BatchNormalizations with statistics of their own, in execution order.
///
/// # Errors
/// A graph with a cycle.
pub fn anchors(graph: &Graph) -> Result<Vec<Anchor>> {
    let mut found = vec![];
    for id in graph.order()?.into_iter().filter(|&id| graph.node(id).op.is("BatchNormalization")) {
        let slots = [0, 3, 4].map(|slot| graph.input(id, slot));
        let [Some(x), Some(mean), Some(var)] = slots else { continue };
        if own_vector(graph, mean) && own_vector(graph, var) {
            let name = |v| graph.name(v).to_string();
            found.push(Anchor { value: (name(x), 1), statistics: (name(mean), name(var)) });
        }
    }
    Ok(found)
}

/// Mean and mean square per channel.
pub type Moments = (Vec<f32>, Vec<f32>);

/// Moves a BatchNormalization's statistics from those that it had, `of_original`, by as much as its input moved: the mean by
/// the difference of means, the variance by the ratio of variances. `before` are the moments of the channels that stayed, in
/// the model before the cut; what a refit set in the meantime is replaced.
///
/// # Errors
/// Values that are gone.
pub fn reestimate(
    model: &mut Model,
    anchor: &Anchor,
    of_original: &Moments,
    (before, after): (&Moments, &Moments),
) -> Result<()> {
    let graph = &model.graph;
    let gone = || Error::internal("a statistic is gone");
    let [mean, var] = [&anchor.statistics.0, &anchor.statistics.1].map(|name| graph.find(name));
    let (mean, var) = (mean.ok_or_else(gone)?, var.ok_or_else(gone)?);
    let (mut means, mut vars) = of_original.clone();
    let size = graph.constant(mean).map_or(0, Tensor::len);
    if [before.0.len(), after.0.len(), vars.len(), size].iter().any(|&n| n != means.len()) {
        return Err(Error::internal("moments of another number of channels"));
    }
    let variance = |m: &Moments, k: usize| f64::from(m.1[k]) - f64::from(m.0[k]) * f64::from(m.0[k]);
    for k in 0..means.len() {
        means[k] += after.0[k] - before.0[k];
        let (old, new) = (variance(before, k), variance(after, k));
        if old > 1e-12 && new > 1e-12 {
            vars[k] = (f64::from(vars[k]) * new / old) as f32;
        }
    }
    let mut patch = Patch::default();
    for (v, data) in [(mean, means), (var, vars)] {
        patch.set_value(v, graph.ty(v).cloned(), Some(Tensor::from_f32(&[data.len()], &data)));
    }
    patch.apply(&mut model.graph)
}
