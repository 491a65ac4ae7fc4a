//! Quantization tried on a sample: the error of a layer's output for given factors and a given range of its input.

use super::options::QuantizeOptions;
use crate::calibrate::{QuantParams, RangeSpec, Sample};
use crate::error::{Error, Result};
use crate::ir::{Graph, NodeId, Tensor};
use crate::math::{Layout, gemm};
use crate::ops::spec::ComputeRole;

/// A linear layer as a matrix per group: `y = x W`.
pub struct Layer {
    weight: Vec<f32>,
    /// Steps from one input to the next, and from one output to the next.
    layout: Layout,
    /// Inputs of a group.
    inputs: usize,
    /// Outputs of all groups.
    outputs: usize,
    groups: usize,
}

impl Layer {
    /// The layer that a node with a constant weight is.
    ///
    /// # Errors
    /// A weight whose data cannot be read.
    pub fn of(graph: &Graph, id: NodeId, role: &ComputeRole) -> Result<Self> {
        let weight = graph.input(id, role.weight).and_then(|w| graph.constant(w));
        let weight: &Tensor = weight.ok_or_else(|| Error::internal("a weight that is not constant"))?;
        let [first, rest @ ..] = &weight.dims[..] else { return Err(Error::internal("a weight without axes")) };
        let rest: usize = rest.iter().product();
        let data = weight.to_f32()?;
        let groups = usize::try_from(graph.node(id).int("group").unwrap_or(1)).unwrap_or(1).max(1);
        // Gemm and MatMul with their outputs along the second axis hold inputs along the first.
        Ok(if role.weight_axis == 0 {
            Self { weight: data, layout: (1, rest), inputs: rest, outputs: *first, groups }
        } else {
            Self { weight: data, layout: (rest, 1), inputs: *first, outputs: rest, groups: 1 }
        })
    }

    /// Elements of a column that the layer takes, over all groups.
    pub fn size(&self) -> usize {
        self.inputs * self.groups
    }

    /// Largest magnitude of the weights of each input. Of one group only.
    pub fn input_maxima(&self) -> Vec<f32> {
        let at = |i: usize| (0..self.outputs).map(move |o| i * self.layout.0 + o * self.layout.1);
        (0..self.inputs).map(|i| at(i).map(|k| self.weight[k].abs()).fold(0.0, f32::max)).collect()
    }

    /// Adds `sign` times the layer's outputs for `columns` (`[n, size]`) to `out` (`[n, outputs]`).
    fn apply(&self, weight: &[f32], columns: &[f32], out: &mut [f32], keep: f32) {
        let (n, per_group) = (columns.len() / self.size().max(1), self.outputs / self.groups);
        for g in 0..self.groups {
            let a = (&columns[g * self.inputs..], (self.size(), 1));
            let b = (&weight[g * per_group * self.layout.1..], self.layout);
            let c = (&mut out[g * per_group..], (self.outputs, 1));
            gemm((n, self.inputs, per_group), 1.0, a, b, keep, c);
        }
    }

    /// The weight with its inputs multiplied by `factors` (absent: 1), rounded to `levels` steps on either side of zero.
    fn rounded(&self, factors: Option<&[f32]>, levels: f32, per_channel: bool) -> Vec<f32> {
        let mut weight = self.weight.clone();
        let place = |k: usize| {
            let (i, o) = self.layout;
            if i == 1 { (k % self.inputs, k / o) } else { (k / i, k % i) }
        };
        if let Some(factors) = factors {
            weight.iter_mut().enumerate().for_each(|(k, w)| *w *= factors[place(k).0]);
        }
        let mut largest = vec![0f32; self.outputs];
        weight.iter().enumerate().for_each(|(k, w)| {
            let m = &mut largest[place(k).1];
            *m = m.max(w.abs());
        });
        if !per_channel {
            let all = largest.iter().copied().fold(0.0, f32::max);
            largest.fill(all);
        }
        for (k, w) in weight.iter_mut().enumerate() {
            let scale = largest[place(k).1] / levels;
            if scale.is_normal() {
                *w = (*w / scale).round_ties_even() * scale;
            }
        }
        weight
    }
}

/// What layers that share an input do to a sample of it.
pub struct Trial<'a> {
    layers: &'a [Layer],
    sample: &'a Sample,
    columns: Vec<f32>,
    /// Outputs of each layer in float, negated.
    references: Vec<Vec<f32>>,
    energies: Vec<f64>,
    activations: RangeSpec,
    levels: f32,
    per_channel: bool,
}

impl<'a> Trial<'a> {
    /// Computes the layers in float. `None` where nothing was sampled, or nothing comes out.
    ///
    /// # Errors
    /// Layers that do not fit the sample.
    pub fn new(layers: &'a [Layer], sample: &'a Sample, options: &QuantizeOptions) -> Result<Option<Self>> {
        let columns = sample.columns();
        let size = columns.len().checked_div(sample.len()).unwrap_or(0);
        if layers.iter().any(|l| l.size() != size && size > 0) {
            return Err(Error::data("a sample does not fit the layer that it was taken for; calibrate again"));
        }
        let (mut references, mut energies) = (vec![], vec![]);
        for layer in layers {
            let mut out = vec![0f32; sample.len() * layer.outputs];
            layer.apply(&layer.weight, &columns, &mut out, 0.0);
            out.iter_mut().for_each(|y| *y = -*y);
            energies.push(squares(&out));
            references.push(out);
        }
        if energies.iter().sum::<f64>() == 0.0 {
            return Ok(None);
        }
        let eight = options.activations;
        let activations = RangeSpec::new(eight.bits(), eight.is_signed(), options.symmetric_activations)?;
        let levels = ((1u32 << (options.weight_bits.max(2) - 1)) - 1) as f32;
        let per_channel = options.per_channel;
        Ok(Some(Self { layers, sample, columns, references, energies, activations, levels, per_channel }))
    }

    /// The range of the input whose channels were divided by `factors`.
    pub fn range(&self, factors: Option<&[f32]>) -> (f32, f32) {
        let divided = |x: &[f32], k: usize| x[k] / factors.map_or(1.0, |f| f[k]);
        let channels = 0..self.sample.low.len();
        let low = channels.clone().map(|k| divided(&self.sample.low, k)).fold(0.0, f32::min);
        (low, channels.map(|k| divided(&self.sample.high, k)).fold(0.0, f32::max))
    }

    /// The error of the outputs, relative to their energy and summed over the layers, where the input's channels are divided
    /// by `factors`, the weights' multiplied by them, and both are rounded: the input to steps over `range`.
    pub fn error(&self, factors: Option<&[f32]>, range: (f32, f32)) -> f64 {
        let params = QuantParams::from_range(range.0, range.1, &self.activations);
        let columns = self.quantized(factors, &params);
        let mut total = 0.0;
        for ((layer, reference), energy) in self.layers.iter().zip(&self.references).zip(&self.energies) {
            if *energy > 0.0 {
                let mut out = reference.clone();
                layer.apply(&layer.rounded(factors, self.levels, self.per_channel), &columns, &mut out, 1.0);
                total += squares(&out) / energy;
            }
        }
        total
    }

    fn quantized(&self, factors: Option<&[f32]>, params: &QuantParams) -> Vec<f32> {
        let round = |x: f32| params.rounded(x, &self.activations);
        match factors {
            None => self.columns.iter().map(|&x| round(x)).collect(),
            Some(f) => self.columns.iter().zip(f.iter().cycle()).map(|(&x, f)| round(x / f)).collect(),
        }
    }
}

fn squares(x: &[f32]) -> f64 {
    // Sums of a row at a time in f32 are exact enough, and fast.
    x.chunks(256).map(|part| f64::from(part.iter().map(|x| x * x).sum::<f32>())).sum()
}
