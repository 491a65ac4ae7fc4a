//! The training form of a quantized model: float operators between roundings, with its constants as parameters.

use super::codes::{Codes, Form, Forms, Latent, store};
use super::parameters::{Parameters, parameters_of, stored};
use crate::error::{Error, Result};
use crate::ir::{DType, Graph, Model, NodeId, Port, Tensor, Type, ValueId};
use crate::math::Array;
use crate::ops::quant::dequantize_linear::ScaleMap;
use crate::ops::quant::quantize_linear::bounds;
use crate::passes::quantize::SpellOut;
use crate::passes::{PassContext, manager};
use std::collections::BTreeMap;

/// Codes as the model stores them.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Name of the initializer.
    pub codes: String,
    /// Its type.
    pub dtype: DType,
    /// Which scale each element has.
    pub map: ScaleMap,
    /// The scales.
    pub scale: Vec<f32>,
    /// Name of their initializer.
    pub scale_name: String,
}

/// A 32-bit bias as the model stores it.
#[derive(Clone, Debug)]
pub(super) struct BiasSource {
    pub source: Source,
    /// Name of the scales of the weight beside it: its own scales go with them.
    pub weight_scale: Option<String>,
}

impl BiasSource {
    /// Writes the bias. `steps`: how often the scales of the weight are what they were.
    pub fn write(&self, bias: &Array<f32>, steps: Option<&Array<f32>>, graph: &mut Graph) -> Result<()> {
        let Source { codes, map, scale_name, .. } = &self.source;
        let mut scale = self.source.scale.clone();
        if let Some(steps) = steps.map(Array::data).filter(|s| !s.is_empty()) {
            scale.iter_mut().enumerate().for_each(|(k, s)| *s *= steps[if steps.len() == 1 { 0 } else { k }]);
        }
        // Operators with scales of weight and input have none for the bias.
        if let Some(dims) = graph.find(scale_name).and_then(|v| graph.constant(v)).map(|t| t.dims.clone()) {
            store(graph, scale_name, Tensor::from_f32(&dims, &scale))?;
        }
        let code = |(k, b): (usize, &f32)| (f64::from(*b) / f64::from(scale[map.at(k)])).round_ties_even() as i32;
        let data: Vec<i32> = bias.data().iter().enumerate().map(code).collect();
        store(graph, codes, Tensor::from_i32(bias.dims(), &data))
    }
}

/// A quantized model to train.
pub(super) struct TrainingForm {
    /// The model.
    pub model: Model,
    /// What its parameters stand for, by name, where not for themselves.
    forms: BTreeMap<String, Form>,
    /// Weights before rounding, in units of their steps, by the name of their codes.
    exact: BTreeMap<String, Vec<f32>>,
}

impl TrainingForm {
    /// That of a model; one without quantized constants is its own. `exact`: the model whose weights were rounded.
    ///
    /// # Errors
    /// A graph with a cycle; data that are missing or damaged.
    pub fn of(student: &Model, exact: Option<&Model>) -> Result<Self> {
        let mut form = Self { model: student.clone(), forms: BTreeMap::new(), exact: BTreeMap::new() };
        manager::run(&mut form.model, &[&SpellOut], &PassContext::default(), None)?;
        for id in form.model.graph.order()? {
            let node = form.model.graph.node(id);
            if node.op.is("DequantizeLinear") {
                form.constant(id, exact)?;
            }
        }
        if form.forms.is_empty() {
            // Nothing to spell out for.
            form.model = student.clone();
            return Ok(form);
        }
        form.model.graph.eliminate_dead()?;
        form.name_values()?;
        crate::analysis::shapes::infer_types(&mut form.model)?;
        Ok(form)
    }

    /// Whether any constant of it is quantized.
    pub fn is_quantized(&self) -> bool {
        !self.forms.is_empty()
    }

    /// Names of what is trained.
    pub fn trained(&self) -> Vec<String> {
        use super::parameters::Role;
        let plain = parameters_of(&self.model).into_iter().filter(|p| p.role == Role::Trained);
        let scales = self.forms.iter().filter(|(_, f)| matches!(f, Form::Scale(_))).map(|(name, _)| name.clone());
        plain.map(|p| p.name.to_string()).chain(scales).collect()
    }

    /// The forms of these parameters, which get the values that learning begins with.
    pub fn forms(&self, parameters: &mut Parameters<f32>, latent: Latent) -> Forms {
        if self.forms.is_empty() {
            return Forms::default();
        }
        let names: Vec<String> = parameters.list().iter().map(|p| p.name.to_string()).collect();
        let mut forms = Forms::new(names.iter().map(|n| self.forms.get(n).cloned().unwrap_or(Form::Plain)).collect());
        let exact: Vec<Option<&[f32]>> = names.iter().map(|n| self.exact.get(n).map(Vec::as_slice)).collect();
        forms.start(parameters, &exact, latent);
        forms
    }

    /// Makes a parameter of the constant codes that a node dequantizes.
    fn constant(&mut self, id: NodeId, exact: Option<&Model>) -> Result<()> {
        let graph = &self.model.graph;
        let (Some(input), Some(out)) = (graph.input(id, 0), graph.output(id, 0)) else { return Ok(()) };
        let cast = graph.producer(input).map(|(p, _)| p).filter(|&p| graph.node(p).op.is("Cast"));
        let codes = cast.and_then(|p| graph.input(p, 0)).unwrap_or(input);
        let Some(tensor) = graph.constant(codes).filter(|t| t.rank() > 0).cloned() else { return Ok(()) };
        let Some(scale_value) = graph.input(id, 1) else { return Ok(()) };
        let Some(scale) = graph.constant(scale_value).cloned() else { return Ok(()) };
        let name = graph.name(codes).to_string();
        if self.forms.contains_key(&name) || graph.is_output(out) {
            return Ok(());
        }
        let source = Source {
            codes: name.clone(),
            dtype: tensor.dtype,
            map: ScaleMap::of(graph.node(id), &tensor.dims, &scale.dims)?,
            scale: scale.to_f32()?,
            scale_name: graph.name(scale_value).to_string(),
        };
        let zero = match graph.input(id, 2) {
            None => vec![0.0],
            Some(z) => match graph.constant(z) {
                Some(z) => z.to_i64()?.into_iter().map(|z| z as f32).collect(),
                None => return Ok(()),
            },
        };
        if tensor.dtype == DType::I32 {
            return self.bias(out, source, &tensor);
        }
        let only_dequantized = |v: ValueId| {
            graph.uses(v).iter().all(|u| graph.node(u.node).op.is("DequantizeLinear") && u.port == Port::In(0))
        };
        let alone = match cast {
            Some(_) => graph.only_use(codes).is_some() && only_dequantized(input),
            None => only_dequantized(codes),
        };
        let Some(range) = bounds(tensor.dtype).filter(|_| alone && !graph.is_output(codes)) else { return Ok(()) };
        let data = tensor.to_i64()?;
        let bounds = few_bits(&data, range, &zero);
        if let Some(weight) = exact.and_then(|m| original(m, graph, out, &tensor.dims, &source, &data, &zero)) {
            self.exact.insert(name.clone(), weight);
        }
        let learns_scale = graph.only_use(scale_value).is_some() && !graph.is_output(scale_value);
        let graph = &mut self.model.graph;
        if cast.is_some() {
            graph.replace_uses(input, codes)?;
        }
        let value = graph.value_mut(codes);
        value.init = Some(Tensor::from_f32(&tensor.dims, &data.iter().map(|&q| q as f32).collect::<Vec<_>>()));
        value.ty = Some(Type::tensor(DType::F32, &tensor.dims));
        if learns_scale {
            self.forms.insert(source.scale_name.clone(), Form::Scale(source.scale.clone()));
        }
        self.forms.insert(name, Form::Codes(Codes { source, bounds, zero, floor: None, exact: false }));
        Ok(())
    }

    /// A bias becomes a float parameter under the name of its dequantized form.
    fn bias(&mut self, out: ValueId, source: Source, codes: &Tensor) -> Result<()> {
        let graph = &self.model.graph;
        let layer = graph.only_use(out).map(|u| u.node);
        let weight_scale = layer.and_then(|id| graph.input(id, 1)).and_then(|w| graph.producer(w));
        let weight_scale = weight_scale.and_then(|(dq, _)| graph.input(dq, 1)).map(|s| graph.name(s).to_string());
        let data = codes.to_i64()?.into_iter().enumerate().map(|(k, q)| q as f32 * source.scale[source.map.at(k)]);
        let tensor = Tensor::from_f32(&codes.dims, &data.collect::<Vec<_>>());
        let name = graph.name(out).to_string();
        let graph = &mut self.model.graph;
        graph.detach(out);
        let value = graph.value_mut(out);
        value.ty = Some(Type::tensor(DType::F32, &codes.dims));
        value.init = Some(tensor);
        self.forms.insert(name, Form::Bias(BiasSource { source, weight_scale }));
        Ok(())
    }

    /// Gives the float form of a value that has codes the name that the value has in the original.
    fn name_values(&mut self) -> Result<()> {
        let graph = &mut self.model.graph;
        for id in graph.order()? {
            let Some(out) = graph.output(id, 0).filter(|_| graph.node(id).op.is("DequantizeLinear")) else { continue };
            let Some(codes) = graph.input(id, 0) else { continue };
            let name = graph.name(codes);
            let public = name.strip_suffix("_q").or(name.strip_suffix("_QuantizeLinear_Output")).map(str::to_string);
            if let Some(public) = public.filter(|n| graph.find(n).is_none() && !graph.is_output(out)) {
                graph.rename(out, &public)?;
            }
        }
        Ok(())
    }
}

/// The codes of as many bits as these need, in a type that may hold more.
fn few_bits(codes: &[i64], range: (i32, i32), zero: &[f32]) -> (f32, f32) {
    let (low, high) = codes.iter().fold((0, 0), |(l, h), &q| (q.min(l), q.max(h)));
    let signed = range.0 < 0;
    // Unsigned codes around a middle are signed ones shifted.
    let middle = if signed { 0 } else { zero.first().map_or(0, |&z| z as i64) };
    for bits in [2, 3, 4] {
        let half = 1i64 << (bits - 1);
        let fits = match (signed, middle == half) {
            (false, false) => high < 2 * half,
            _ => low >= middle - half && high < middle + half,
        };
        if fits {
            return if signed { (-half as f32, (half - 1) as f32) } else { (0.0, (2 * half - 1) as f32) };
        }
    }
    // The smallest code of 8 bits is not used: the grid is symmetric.
    if range == (-128, 127) { (-127.0, 127.0) } else { (range.0 as f32, range.1 as f32) }
}

/// The weight whose codes a layer takes, in units of the steps.
fn original(
    exact: &Model,
    graph: &Graph,
    dequantized: ValueId,
    dims: &[usize],
    source: &Source,
    codes: &[i64],
    zero: &[f32],
) -> Option<Vec<f32>> {
    let user = graph.uses(dequantized).into_iter().next()?;
    let (Port::In(slot), name) = (user.port, &graph.node(user.node).name) else { return None };
    let e = &exact.graph;
    let mut found = e.nodes().filter(|&id| e.node(id).name == *name && !name.is_empty());
    let layer = found.next().filter(|_| found.next().is_none())?;
    let weight = e.constant(e.input(layer, slot as usize)?)?;
    let data = weight.to_f32().ok()?;
    let units = |w: &dyn Fn(usize) -> f32| (0..codes.len()).map(|k| w(k) / source.scale[source.map.at(k)]).collect();
    let error = |u: &Vec<f32>| {
        let zero = |k: usize| zero[if zero.len() == 1 { 0 } else { source.map.at(k) }];
        u.iter().zip(codes).enumerate().map(|(k, (u, &q))| f64::from(u + zero(k) - q as f32).powi(2)).sum::<f64>()
    };
    let mut candidates: Vec<Vec<f32>> = vec![];
    if weight.dims == dims {
        candidates.push(units(&|k| data[k]));
    }
    if let ([rows, columns], [a, b]) = (dims, &weight.dims[..])
        && (rows, columns) == (b, a)
    {
        candidates.push(units(&|k| data[k % columns * rows + k / columns]));
    }
    let best = candidates.into_iter().min_by(|a, b| error(a).total_cmp(&error(b)))?;
    // Another weight under the same name tells nothing.
    (error(&best) <= 0.5 * error(&vec![0.0; codes.len()])).then_some(best)
}

/// A float constant in the type that it had.
pub(super) fn store_plain(graph: &mut Graph, name: &str, value: &Array<f32>, dtype: DType) -> Result<()> {
    match graph.find(name) {
        Some(_) => store(graph, name, stored(value, dtype)),
        None => Err(Error::internal(format!("the model has no initializer \"{name}\""))),
    }
}
