//! What a student is compared with: the teacher's outputs, and the loss of each.

use super::augment::Augment;
use super::distill_options::DistillOptions;
use super::features::Feature;
use super::loss::{
    Loss, cosine_distance, cross_entropy, divergence, probability_divergence, relative_error, squared_error,
};
use super::samples::Samples;
use super::tape::{Seed, Tape};
use super::teacher::Executor;
use crate::error::{Context, Error, Result};
use crate::io::Feed;
use crate::ir::{Graph, Model, Type, ValueId};
use crate::math::Array;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The loss of an output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// KL divergence of scores of classes, softened by the temperature.
    Kl,
    /// KL divergence of outputs that are probabilities.
    Probabilities,
    /// Mean squared error.
    Mse,
    /// Squared error as a share of the teacher's squares.
    Relative,
    /// One minus the cosine of rows.
    Cosine,
    /// Not compared.
    None,
}

impl LossKind {
    /// As options spell it.
    pub fn name(self) -> &'static str {
        match self {
            LossKind::Kl => "kl",
            LossKind::Probabilities => "probabilities",
            LossKind::Mse => "mse",
            LossKind::Relative => "relative",
            LossKind::Cosine => "cosine",
            LossKind::None => "none",
        }
    }
}

impl std::str::FromStr for LossKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [
            LossKind::Kl,
            LossKind::Probabilities,
            LossKind::Mse,
            LossKind::Relative,
            LossKind::Cosine,
            LossKind::None,
        ];
        let found = all.into_iter().find(|k| k.name() == text);
        let names = all.map(LossKind::name).join(", ");
        found.ok_or_else(|| Error::usage(format!("no loss \"{text}\"; there are {names}")))
    }
}

/// An output of the student and the teacher's that it is compared with.
struct Pair {
    name: String,
    student: usize,
    teacher: usize,
    kind: LossKind,
}

/// The teacher, and its outputs on the samples as they are.
pub(super) struct Targets {
    pub augment: Augment,
    teacher: Executor,
    pairs: Vec<Pair>,
    /// They come after the graph outputs, in both models.
    features: Vec<Feature>,
    /// Graph outputs of the teacher and the student.
    outputs: (usize, usize),
    /// Per teacher output and sample.
    cached: Vec<Vec<Array<f32>>>,
    /// Whether the teacher takes several samples at once.
    joinable: bool,
}

/// Samples that the teacher takes at once.
const PIECE: usize = 16;

impl Targets {
    pub fn new(
        teacher: &Model,
        student: &Model,
        features: Vec<Feature>,
        samples: &Samples,
        augment: Augment,
        options: &DistillOptions,
    ) -> Result<Self> {
        same_inputs(&teacher.graph, &student.graph)?;
        let free = |v| {
            teacher.graph.ty(v).and_then(Type::shape).is_none_or(|s| s.first().is_some_and(|d| d.known().is_none()))
        };
        let joinable = samples.joinable() && teacher.graph.required_inputs().all(free);
        let pairs = pairs(&teacher.graph, &student.graph)?;
        let outputs = (teacher.graph.outputs().len(), student.graph.outputs().len());
        let first: Vec<usize> = (0..if joinable { PIECE.min(samples.len()) } else { 1 }).collect();
        let executor = Executor::new(teacher, &features, &samples.joined(&first)?)?;
        let mut targets = Self { augment, teacher: executor, pairs, features, outputs, cached: vec![], joinable };
        targets.cache(samples)?;
        for pair in &mut targets.pairs {
            let values = &targets.cached[pair.teacher];
            pair.kind = match options.losses.get(&pair.name) {
                Some(kind) => *kind,
                None => usual(&pair.name, values, options.label_weight > 0.0),
            };
        }
        let known = |name: &String| targets.pairs.iter().any(|p| p.name == *name);
        if let Some(name) = options.losses.keys().find(|n| !known(n)) {
            return Err(Error::usage(format!(
                "a loss is given for \"{name}\", which is no output that both models have"
            )));
        }
        if targets.pairs.iter().all(|p| p.kind == LossKind::None) {
            return Err(Error::usage("no output is compared"));
        }
        for pair in targets.pairs.iter().filter(|p| p.kind != LossKind::None) {
            if let Some(i) = targets.cached[pair.teacher].iter().position(|y| !y.is_finite()) {
                let name = &pair.name;
                return Err(Error::data(format!("the teacher's output \"{name}\" is NaN or infinite on sample {i}")));
            }
        }
        Ok(targets)
    }

    /// Loss of each output.
    pub fn kinds(&self) -> BTreeMap<String, LossKind> {
        self.pairs.iter().map(|p| (p.name.clone(), p.kind)).collect()
    }

    /// The teacher's outputs on the samples as they are: per output and sample.
    pub fn cached(&self) -> &[Vec<Array<f32>>] {
        &self.cached
    }

    fn cache(&mut self, samples: &Samples) -> Result<()> {
        let all: Vec<usize> = (0..samples.len()).collect();
        let pieces: Vec<&[usize]> = all.chunks(if self.joinable { PIECE } else { 1 }).collect();
        let outputs = self.outputs.0;
        let of = |piece: &&[usize]| {
            let mut values = self.teacher.run(&samples.joined(piece)?)?;
            values.truncate(outputs); // features would take too much memory
            split(values, piece.len())
        };
        let found: Result<Vec<_>> = pieces.par_iter().map(of).collect();
        for outputs in found?.into_iter().flatten() {
            self.cached.resize_with(outputs.len(), Vec::new);
            self.cached.iter_mut().zip(outputs).for_each(|(all, y)| all.push(y));
        }
        Ok(())
    }

    /// The teacher's outputs, and features unless `plain`, on a feed that is made of these samples; `plain`: as they are.
    fn of(&self, feed: &Feed, which: &[usize], plain: bool) -> Result<Vec<Array<f32>>> {
        if plain || (self.augment.is_nothing() && self.features.is_empty()) {
            return self.cached.iter().map(|all| join(which.iter().map(|&i| &all[i]))).collect();
        }
        if !self.joinable || which.len() <= PIECE {
            return self.teacher.run(feed);
        }
        let parts = rows_of(feed, which.len(), PIECE)?;
        let found: Result<Vec<_>> = parts.par_iter().map(|part| self.teacher.run(part)).collect();
        let found = found?;
        (0..self.outputs.0 + self.features.len()).map(|k| join(found.iter().map(|part| &part[k]))).collect()
    }

    /// The student's loss on a feed, and where its gradients begin; `plain`: of its outputs alone, on samples as they are.
    pub fn loss(
        &self,
        tape: &Tape<f32>,
        feed: &Feed,
        which: &[usize],
        labels: Option<&[i64]>,
        plain: bool,
        options: &DistillOptions,
    ) -> Result<(f64, Vec<Seed<f32>>)> {
        let teacher = self.of(feed, which, plain)?;
        let (mut total, mut seeds) = (0.0, vec![]);
        let mut labels = labels;
        for pair in self.pairs.iter().filter(|p| p.kind != LossKind::None) {
            let (y, t) = (tape.output(pair.student)?, &teacher[pair.teacher]);
            let place = || format!("output \"{}\"", pair.name);
            if y.dims() != t.dims() {
                let (a, b) = (y.dims(), t.dims());
                return Err(Error::usage(format!("{} has shape {a:?} in the student, {b:?} in the teacher", place())));
            }
            let Loss { mut value, mut gradient } = match pair.kind {
                LossKind::Kl => divergence(y, t, options.temperature),
                LossKind::Probabilities => probability_divergence(y, t),
                LossKind::Cosine => cosine_distance(y, t),
                LossKind::Relative => relative_error(y, t),
                LossKind::Mse | LossKind::None => squared_error(y, t),
            }
            .context(place)?;
            // Labels judge the first output of scores.
            if let Some(labels) = labels.take_if(|_| pair.kind == LossKind::Kl) {
                let (hard, share) = (cross_entropy(y, labels).context(place)?, options.label_weight);
                value = (1.0 - share) * value + share * hard.value;
                let (soft_share, hard_share) = ((1.0 - share) as f32, share as f32);
                let mix = |s: f32, h: f32| soft_share * s + hard_share * h;
                gradient = Array::new(y.dims(), crate::math::elementwise2(gradient.data(), hard.gradient.data(), mix));
            }
            total += value;
            seeds.push(Seed { output: pair.student, gradient });
        }
        if labels.is_some() {
            return Err(Error::usage("labels need an output of scores (loss kl), and there is none"));
        }
        if !plain {
            total += self.feature_loss(tape, &teacher[self.outputs.0.min(teacher.len())..], &mut seeds, options)?;
        }
        Ok((total, seeds))
    }

    fn feature_loss(
        &self,
        tape: &Tape<f32>,
        teacher: &[Array<f32>],
        seeds: &mut Vec<Seed<f32>>,
        options: &DistillOptions,
    ) -> Result<f64> {
        let weight = options.feature_weight / self.features.len().max(1) as f64;
        let mut total = 0.0;
        for ((k, feature), t) in self.features.iter().enumerate().zip(teacher) {
            let output = self.outputs.1 + k;
            let place = || format!("feature \"{}\"", feature.name);
            let t = feature.kept.iter().fold(t.clone(), |t, (&axis, kept)| picked(&t, axis, kept));
            let loss = relative_error(tape.output(output)?, &t).context(place)?;
            total += weight * loss.value;
            seeds.push(Seed { output, gradient: loss.gradient.map(|g| g * weight as f32) });
        }
        Ok(total)
    }
}

/// These positions of an axis.
fn picked(x: &Array<f32>, axis: usize, kept: &[usize]) -> Array<f32> {
    let mut dims = x.dims().to_vec();
    let (size, inner) = (dims[axis], dims[axis + 1..].iter().product::<usize>());
    dims[axis] = kept.len();
    let mut data = Vec::with_capacity(dims.iter().product());
    for block in x.data().chunks((size * inner).max(1)) {
        kept.iter().for_each(|&k| data.extend_from_slice(&block[k * inner..][..inner]));
    }
    Array::new(&dims, data)
}

/// The usual loss of an output, from what the teacher makes of it.
fn usual(name: &str, values: &[Array<f32>], labelled: bool) -> LossKind {
    let Some(first) = values.first().filter(|y| y.rank() > 1 && y.dims()[1] > 1) else { return LossKind::Mse };
    let n = *first.dims().last().unwrap_or(&1);
    let rows = || values.iter().take(64).flat_map(|y| y.data().chunks(n.max(1)));
    let all = |test: &dyn Fn(&[f32]) -> bool| rows().all(test);
    if first.rank() == 2 && all(&|r| r.iter().all(|&x| x >= 0.0) && (r.iter().sum::<f32>() - 1.0).abs() < 1e-3) {
        return LossKind::Probabilities;
    }
    if all(&|r| (r.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-3) {
        return LossKind::Cosine;
    }
    let name = name.to_lowercase();
    let says_so = ["logit", "class", "score", "prob"].iter().any(|w| name.contains(w));
    if says_so || (labelled && first.rank() == 2) { LossKind::Kl } else { LossKind::Mse }
}

fn same_inputs(teacher: &Graph, student: &Graph) -> Result<()> {
    let named = |g: &Graph| -> BTreeMap<String, Option<Type>> {
        g.required_inputs().map(|v| (g.name(v).to_string(), g.ty(v).cloned())).collect()
    };
    let (t, s) = (named(teacher), named(student));
    let list = |m: &BTreeMap<String, Option<Type>>| m.keys().cloned().collect::<Vec<_>>().join(", ");
    if let Some(name) = t.keys().find(|n| !s.contains_key(*n)) {
        return Err(Error::usage(format!(
            "the teacher takes \"{name}\", the student does not (it takes {})",
            list(&s)
        )));
    }
    for (name, ty) in &t {
        let elem = |ty: &Option<Type>| ty.as_ref().and_then(Type::elem);
        if let (Some(a), Some(b)) = (elem(ty), elem(&s[name]))
            && a != b
        {
            return Err(Error::usage(format!("input \"{name}\" is {a} in the teacher, {b} in the student")));
        }
    }
    Ok(())
}

/// Outputs of one name; where there are none, those at one position.
fn pairs(teacher: &Graph, student: &Graph) -> Result<Vec<Pair>> {
    let floats = |g: &Graph| -> Vec<(usize, String)> {
        let float = |v: ValueId| g.ty(v).and_then(Type::elem).is_none_or(|e| e.is_float());
        g.outputs().iter().enumerate().filter(|(_, v)| float(**v)).map(|(k, &v)| (k, g.name(v).to_string())).collect()
    };
    let (t, s) = (floats(teacher), floats(student));
    let pair = |(student, name): &(usize, String), teacher| Pair {
        name: name.clone(),
        student: *student,
        teacher,
        kind: LossKind::None,
    };
    let by_name = |x: &(usize, String)| Some(pair(x, t.iter().find(|(_, n)| *n == x.1)?.0));
    let named: Vec<Pair> = s.iter().filter_map(by_name).collect();
    let names = |list: &[(usize, String)]| list.iter().map(|(_, n)| n.clone()).collect::<Vec<_>>().join(", ");
    match named.len() {
        n if n == s.len() && n > 0 => Ok(named),
        0 if s.len() == t.len() && !s.is_empty() => Ok(s.iter().zip(&t).map(|(x, (k, _))| pair(x, *k)).collect()),
        _ => Err(Error::usage(format!(
            "the outputs do not match: the teacher has {}, the student {}",
            names(&t),
            names(&s)
        ))),
    }
}

/// Rows of each output, one array per sample.
fn split(outputs: Vec<Array<f32>>, samples: usize) -> Result<Vec<Vec<Array<f32>>>> {
    let part = |y: &Array<f32>, k: usize| -> Result<Array<f32>> {
        if samples == 1 {
            return Ok(y.clone());
        }
        let rows = y.dims().first().copied().unwrap_or(0);
        if rows == 0 || rows % samples != 0 {
            return Err(Error::unsupported(format!("an output of shape {:?} for {samples} samples", y.dims())));
        }
        let mut dims = y.dims().to_vec();
        dims[0] = rows / samples;
        let n = y.len() / samples;
        Ok(Array::new(&dims, y.data()[k * n..(k + 1) * n].to_vec()))
    };
    (0..samples).map(|k| outputs.iter().map(|y| part(y, k)).collect()).collect()
}

fn join<'a>(parts: impl Iterator<Item = &'a Array<f32>>) -> Result<Array<f32>> {
    let parts: Vec<&Array<f32>> = parts.collect();
    let Some(first) = parts.first() else { return Err(Error::internal("no outputs to join")) };
    if parts.len() == 1 {
        return Ok((*first).clone());
    }
    let mut dims = first.dims().to_vec();
    if dims.is_empty() || parts.iter().any(|p| p.dims()[1..] != dims[1..]) {
        return Err(Error::unsupported("outputs of different shapes cannot be batched"));
    }
    dims[0] = parts.iter().map(|p| p.dims()[0]).sum();
    Ok(Array::new(&dims, parts.iter().flat_map(|p| p.data().iter().copied()).collect()))
}

/// A feed of `samples` samples in pieces of at most `most`.
fn rows_of(feed: &Feed, samples: usize, most: usize) -> Result<Vec<Feed>> {
    let piece = |from: usize, to: usize| -> Result<Feed> {
        let cut = |(name, t): (&String, &crate::ir::Tensor)| {
            let bytes = t.bytes()?;
            let (rows, size) = (t.dims.first().copied().unwrap_or(0) / samples, bytes.len() / samples);
            let mut dims = t.dims.clone();
            if let Some(first) = dims.first_mut() {
                *first = rows * (to - from);
            }
            Ok((name.clone(), crate::ir::Tensor::raw(t.dtype, &dims, bytes[from * size..to * size].to_vec())))
        };
        feed.iter().map(cut).collect()
    };
    (0..samples).step_by(most).map(|k| piece(k, (k + most).min(samples))).collect()
}
