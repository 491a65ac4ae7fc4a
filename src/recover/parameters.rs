//! Which constants of a model are trained, and their values.

use crate::analysis::shapes::Contexts;
use crate::error::{Context, Error, Result};
use crate::ir::{DType, Model, Tensor, ValueId};
use crate::math::Array;
use crate::ops;
use crate::ops::gradient::{Element, Rule};
use std::collections::HashSet;
use std::sync::Arc;

/// What a constant is to training.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Changed by its gradient.
    Trained,
    /// A statistic of the data: re-estimated, never changed by a gradient.
    Statistic,
}

/// A constant of the model that a run may change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parameter {
    /// Name of the initializer.
    pub name: Arc<str>,
    /// Shape.
    pub dims: Vec<usize>,
    /// Element type in the file.
    pub dtype: DType,
    /// What it is.
    pub role: Role,
}

/// The float initializers of the main graph that have axes: weights, biases, scales, tables. Scalars are taken for
/// constants of the formula (an epsilon, an exponent), and so is what no node uses, and settings such as the scales of a
/// Resize.
pub fn parameters_of(model: &Model) -> Vec<Parameter> {
    let graph = &model.graph;
    let (statistics, settings) = (at_slots(model, |r| r.statistics), at_slots(model, |r| r.settings));
    let is_float = |t: &Tensor| t.dtype.is_float() && t.rank() > 0 && !t.is_empty();
    let found = graph.values().filter(|v| !settings.contains(v)).filter_map(|v| {
        let t = graph.value(v).init.as_ref().filter(|t| is_float(t) && graph.has_uses(v))?;
        let role = if statistics.contains(&v) { Role::Statistic } else { Role::Trained };
        Some(Parameter { name: graph.value(v).name.clone(), dims: t.dims.clone(), dtype: t.dtype, role })
    });
    found.collect()
}

/// Initializers in certain slots of their nodes' rules, also behind one Identity.
fn at_slots(model: &Model, slots: impl Fn(&Rule) -> &'static [usize]) -> HashSet<ValueId> {
    let graph = &model.graph;
    let contexts = Contexts::new(model, graph);
    let mut found = HashSet::new();
    for id in graph.nodes() {
        let rule = ops::spec(&graph.node(id).op).and_then(|spec| spec.gradient(&contexts.of(id)));
        for v in rule.iter().flat_map(&slots).filter_map(|&k| graph.input(id, k)) {
            let behind = graph.producer(v).filter(|(p, _)| graph.node(*p).op.is("Identity"));
            found.insert(behind.and_then(|(p, _)| graph.input(p, 0)).unwrap_or(v));
        }
    }
    found
}

/// Values of the parameters of a [`super::Network`], in its order.
#[derive(Clone, Debug)]
pub struct Parameters<T> {
    list: Arc<Vec<Parameter>>,
    values: Vec<Array<T>>,
}

impl<T: Element> Parameters<T> {
    /// Reads them from the model.
    ///
    /// # Errors
    /// A name that is no float initializer; data that are missing or damaged.
    pub fn read(model: &Model, list: Arc<Vec<Parameter>>) -> Result<Self> {
        let read = |p: &Parameter| {
            let value = model.graph.find(&p.name).and_then(|v| model.graph.value(v).init.as_ref());
            let missing = || Error::usage(format!("the model has no initializer \"{}\"", p.name));
            T::read(value.ok_or_else(missing)?).context(|| format!("initializer \"{}\"", p.name))
        };
        let values = list.iter().map(read).collect::<Result<_>>()?;
        Ok(Self { list, values })
    }

    /// Writes them into the model, in the types that they have there.
    ///
    /// # Errors
    /// A model that does not have them.
    pub fn write(&self, model: &mut Model) -> Result<()> {
        for (p, value) in self.list.iter().zip(&self.values) {
            let missing = || Error::internal(format!("the model has no initializer \"{}\"", p.name));
            let v = model.graph.find(&p.name).ok_or_else(missing)?;
            let old = model.graph.value(v).init.as_ref().and_then(|t| t.extra.clone());
            let mut tensor = stored(value, p.dtype);
            tensor.extra = old;
            model.graph.value_mut(v).init = Some(tensor);
        }
        Ok(())
    }

    /// What they are.
    pub fn list(&self) -> &[Parameter] {
        &self.list
    }

    /// Their values.
    pub fn values(&self) -> &[Array<T>] {
        &self.values
    }

    /// Their values, to change.
    pub fn values_mut(&mut self) -> &mut [Array<T>] {
        &mut self.values
    }

    /// The value with this name.
    pub fn get(&self, name: &str) -> Option<&Array<T>> {
        self.list.iter().position(|p| &*p.name == name).map(|k| &self.values[k])
    }
}

pub(super) fn stored<T: Element>(a: &Array<T>, dtype: DType) -> Tensor {
    let narrow =
        |to: &dyn Fn(f32) -> [u8; 2]| -> Vec<u8> { a.data().iter().flat_map(|x| to(x.wide() as f32)).collect() };
    match dtype {
        DType::F16 => Tensor::raw(dtype, a.dims(), narrow(&|x| half::f16::from_f32(x).to_le_bytes())),
        DType::BF16 => Tensor::raw(dtype, a.dims(), narrow(&|x| half::bf16::from_f32(x).to_le_bytes())),
        DType::F64 => Tensor::from_f64(a.dims(), &a.data().iter().map(|x| x.wide()).collect::<Vec<_>>()),
        _ => Tensor::from_f32(a.dims(), &a.data().iter().map(|x| x.wide() as f32).collect::<Vec<_>>()),
    }
}
