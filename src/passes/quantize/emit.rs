//! Writes a plan into the graph: what both spellings share.

use super::groups::has_output_scale;
use super::options::Format;
use super::plan::{Plan, Quantization};
use super::rounding::{Levels, Partition, Rows, round};
use super::structure::{Decision, Kind, Structure};
use super::weights::{
    QuantizedWeight, drift_shift, laid_out, least_scales, mean_shift, quantize_bias, quantize_weight,
};
use super::{qdq, qlinear};
use crate::error::{Context, Error, Result};
use crate::ir::{DType, Graph, Node, NodeId, OpId, Port, Tensor, TensorType, Type, ValueId};
use crate::ops::spec::ComputeRole;
use crate::passes::{Patch, Ref};
use std::collections::HashMap;

/// The changes that spell the plan, and what there is to say about them.
///
/// # Errors
/// NaN or infinity in a weight, with the node's name.
pub fn emit(graph: &Graph, plan: &Plan) -> Result<(Patch, Vec<String>)> {
    let mut emitter = Emitter::new(graph, plan);
    for (id, kind) in plan.structure.integer_nodes() {
        let written = match plan.options.format {
            Format::Qlinear => qlinear::write(&mut emitter, id, kind),
            Format::Qdq => qdq::write(&mut emitter, id, kind),
        };
        written.context(|| graph.node(id).label())?;
    }
    let reduced = emitter.reduced;
    let note =
        (reduced > 0).then(|| format!("{reduced} output channels of weights have 7 bits, so that no pair saturates"));
    Ok((emitter.patch, note.into_iter().collect()))
}

/// State of the writing.
pub(super) struct Emitter<'a> {
    pub graph: &'a Graph,
    pub plan: &'a Plan,
    pub patch: Patch,
    /// 8-bit form of a value.
    codes: HashMap<ValueId, Ref>,
    /// Float form of a value that was rounded to 8 bits.
    rounded: HashMap<ValueId, Ref>,
    /// Scale and zero point of a group.
    parameters: HashMap<usize, (Ref, Ref)>,
    /// Small constants that many nodes share.
    shared: HashMap<(DType, Vec<usize>, Vec<u8>), Ref>,
    /// Weights by value, axis, transposition and scale.
    weights: HashMap<(ValueId, usize, bool, Vec<u32>), Weight>,
    /// Channels of weights that got 7 bits.
    reduced: usize,
}

/// A quantized weight in the graph.
#[derive(Clone)]
pub(super) struct Weight {
    pub data: Ref,
    pub scale: Ref,
    pub zero_point: Ref,
    pub scales: Vec<f32>,
    /// Output channels.
    pub channels: usize,
    pub bias: Option<Ref>,
}

impl<'a> Emitter<'a> {
    fn new(graph: &'a Graph, plan: &'a Plan) -> Self {
        let patch = Patch::default();
        let (codes, rounded) = (HashMap::new(), HashMap::new());
        let (parameters, shared, weights) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { graph, plan, patch, codes, rounded, parameters, shared, weights, reduced: 0 }
    }

    /// Whether the node's result is rounded to 8 bits.
    pub fn rounds_output(&self, id: NodeId, kind: &Kind) -> bool {
        has_output_scale(self.graph, &self.plan.structure, &self.plan.options, id, kind)
    }

    /// Input at `slot`, which the plan relies on.
    pub fn input(&self, id: NodeId, slot: usize) -> Result<ValueId> {
        self.graph.input(id, slot).ok_or_else(|| Error::internal(format!("input {slot} is absent")))
    }

    /// The value that the node delivers, behind an absorbed activation.
    pub fn delivered(&self, id: NodeId) -> Result<ValueId> {
        let out = self.plan.structure.delivered(self.graph, id);
        out.ok_or_else(|| Error::internal("a quantized node without an output"))
    }

    pub fn quantization(&self, v: ValueId) -> Result<Quantization> {
        let found = self.plan.quantization(v);
        found.ok_or_else(|| Error::internal(format!("no scale for \"{}\"", self.graph.name(v))))
    }

    /// A node of another operator under the name, and in the place, of the node that it replaces.
    pub fn like(&self, id: NodeId, op: OpId) -> Node {
        let old = self.graph.node(id);
        let mut node = Node::new(op);
        node.name = old.name.clone();
        node.rank = old.rank;
        node
    }

    /// Type of the 8-bit form of a value.
    pub fn code_type(&self, v: ValueId) -> Option<Type> {
        let shape = self.graph.ty(v)?.as_tensor()?.shape.clone();
        let elem = self.quantization(v).ok()?.eight.dtype();
        Some(Type::Tensor(TensorType { elem, shape }))
    }

    /// Name for the 8-bit form of a value.
    pub fn code_name(&self, v: ValueId) -> String {
        format!("{}_q", self.graph.name(v))
    }

    /// Scale and zero point of a value, as constants shared by its group.
    pub fn parameters(&mut self, v: ValueId) -> Result<(Ref, Ref)> {
        let group = self.plan.groups.group(v);
        let group = group.ok_or_else(|| Error::internal(format!("no scale group for \"{}\"", self.graph.name(v))))?;
        if let Some(&found) = self.parameters.get(&group) {
            return Ok(found);
        }
        let q = self.quantization(v)?;
        let name = self.graph.name(v);
        let scale = self.patch.constant(&format!("{name}_s"), Tensor::from_f32(&[], &[q.scale]));
        let zero_point = self.code_constant(q.eight.dtype(), &[], &[q.zero_point]);
        self.parameters.insert(group, (scale, zero_point));
        Ok((scale, zero_point))
    }

    /// A constant of codes, one for all who want the same.
    pub fn code_constant(&mut self, dtype: DType, dims: &[usize], codes: &[i32]) -> Ref {
        let width = dtype.bits() / 8;
        let bytes: Vec<u8> = codes.iter().flat_map(|q| q.to_le_bytes().into_iter().take(width)).collect();
        let key = (dtype, dims.to_vec(), bytes.clone());
        if let Some(&found) = self.shared.get(&key) {
            return found;
        }
        // Shared by many nodes, so named after what it holds.
        let size = dims.first().map_or_else(String::new, |n| format!("x{n}"));
        let hint = format!("zp{}{size}", codes.first().copied().unwrap_or(0));
        let made = self.patch.constant(&hint, Tensor::raw(dtype, dims, bytes));
        self.shared.insert(key, made);
        made
    }

    /// The 8-bit form of a value: what an integer node made, else a QuantizeLinear of the float value.
    pub fn code(&mut self, v: ValueId) -> Result<Ref> {
        if let Some(&code) = self.codes.get(&v) {
            return Ok(code);
        }
        let rank = self.graph.producer(v).map_or(0, |(p, _)| self.graph.node(p).rank);
        let code = self.quantize(v, v.into(), rank)?;
        self.codes.insert(v, code);
        Ok(code)
    }

    /// QuantizeLinear of `float` with the parameters of `v`.
    pub fn quantize(&mut self, v: ValueId, float: Ref, rank: u32) -> Result<Ref> {
        let (scale, zero_point) = self.parameters(v)?;
        let mut node = Node::new(OpId::onnx("QuantizeLinear"));
        node.rank = rank;
        let (name, ty) = (self.code_name(v), self.code_type(v));
        Ok(self.patch.node(node, &[Some(float), Some(scale), Some(zero_point)], &name, ty))
    }

    /// The float form of the rounded value: one DequantizeLinear for all who take it.
    pub fn rounded(&mut self, v: ValueId) -> Result<Ref> {
        if let Some(&found) = self.rounded.get(&v) {
            return Ok(found);
        }
        let code = self.code(v)?;
        let (scale, zero_point) = self.parameters(v)?;
        let mut node = Node::new(OpId::onnx("DequantizeLinear"));
        node.rank = self.graph.producer(v).map_or(0, |(p, _)| self.graph.node(p).rank);
        let hint = format!("{}_dequantized", self.graph.name(v));
        let inputs = [Some(code), Some(scale), Some(zero_point)];
        let float = self.patch.node(node, &inputs, &hint, self.graph.ty(v).cloned());
        self.rounded.insert(v, float);
        Ok(float)
    }

    /// Records the 8-bit form that replaces `v`, and gives float users a DequantizeLinear of it.
    pub fn deliver(&mut self, v: ValueId, code: Ref) -> Result<()> {
        self.codes.insert(v, code);
        if self.has_float_users(v) {
            let float = self.rounded(v)?;
            self.patch.replace(v, float);
        }
        Ok(())
    }

    fn has_float_users(&self, v: ValueId) -> bool {
        let takes_code = |node: NodeId, slot: u32| match self.plan.structure.decision(node) {
            Decision::Integer(kind) => Structure::quantized_slots(self.graph, node, kind).contains(&(slot as usize)),
            Decision::Absorbed => true,
            Decision::Stored | Decision::Float(_) | Decision::NotFloat => false,
        };
        let is_float = |port, node| !matches!(port, Port::In(slot) if takes_code(node, slot));
        self.graph.is_output(v) || self.graph.uses(v).into_iter().any(|u| is_float(u.port, u.node))
    }

    /// The weight (and bias) of a linear layer in 8 (and 32) bits. The bias takes up what rounding the weight shifts the
    /// mean output by, where the op has room for a bias and the inputs' means are known.
    pub fn weight(&mut self, id: NodeId, role: &ComputeRole, transpose: bool) -> Result<Weight> {
        let graph = self.graph;
        let (w, x) = (self.input(id, role.weight)?, self.input(id, role.activation)?);
        let tensor = graph.constant(w).ok_or_else(|| Error::internal("a weight that is not constant"))?;
        let input_scale = self.quantization(x)?.scale;
        let bias_value = role.bias.and_then(|slot| graph.input(id, slot));
        let bias = bias_value.and_then(|b| graph.constant(b)).map(Tensor::to_f32).transpose()?;
        let channels = tensor.dims.get(role.weight_axis).copied().unwrap_or(0);
        if bias.as_ref().is_some_and(|b| b.len() != channels) {
            let text = format!("a bias that does not have one element for each of {channels} channels");
            return Err(Error::unsupported(text));
        }
        let options = &self.plan.options;
        let ahead = self.plan.rounded(id);
        let quantized = match ahead {
            Some(layer) => laid_out(&layer.weight, &tensor.dims, role.weight_axis, options),
            None if self.plan.weight_bits(id) < 8 => {
                let rows = Rows::of(&tensor.to_f32()?, &tensor.dims, role.weight_axis);
                let least = bias.as_deref().map(|b| least_scales(b, input_scale));
                let partition = Partition::whole(rows.columns);
                let rounded = round(
                    &rows,
                    &partition,
                    &Levels::with_bits(options, self.plan.weight_bits(id)),
                    None,
                    least.as_deref(),
                )?;
                laid_out(&rounded, &tensor.dims, role.weight_axis, options)
            }
            None => quantize_weight(tensor, role.weight_axis, bias.as_deref(), input_scale, options)?,
        };
        let mean = self.plan.input_mean(x).filter(|_| role.bias.is_some() && !transpose);
        let shift: Option<Vec<f32>> = match ahead.and_then(|layer| layer.correction.as_ref()) {
            Some(correction) => Some(correction.iter().map(|c| -c).collect()),
            None => mean.map(|mean| mean_shift(tensor, role.weight_axis, &quantized, mean)).transpose()?.flatten(),
        };
        let drift = self.plan.input_drift(x).filter(|_| role.bias.is_some() && !transpose);
        let drift = drift.map(|d| drift_shift(tensor, role.weight_axis, &quantized, d)).transpose()?.flatten();
        let shift = match (shift, drift) {
            (Some(a), Some(b)) => Some(a.iter().zip(&b).map(|(a, b)| a + b).collect()),
            (a, b) => a.or(b),
        };
        let corrected = match (bias, shift) {
            (None, None) => None,
            (bias, None) => bias,
            (bias, Some(shift)) => {
                let bias = bias.unwrap_or_else(|| vec![0.0; channels]);
                Some(bias.iter().zip(&shift).map(|(b, s)| b - s).collect())
            }
        };
        let key = (w, role.weight_axis, transpose, quantized.scale.iter().map(|s| s.to_bits()).collect());
        let mut weight = match self.weights.get(&key) {
            Some(found) => found.clone(),
            None => {
                let few = self.plan.weight_bits(id) < 8;
                let made = self.add_weight(w, &quantized, (channels, transpose, few))?;
                self.reduced += quantized.reduced;
                self.weights.insert(key, made.clone());
                made
            }
        };
        if let Some(bias) = corrected {
            let q = quantize_bias(&bias, input_scale, &weight.scales)?;
            weight.bias = Some(self.add_bias(w, bias_value, &q));
        }
        Ok(weight)
    }

    fn add_bias(&mut self, w: ValueId, bias: Option<ValueId>, q: &[i32]) -> Ref {
        let tensor = Tensor::from_i32(&[q.len()], q);
        let Some(b) = bias else {
            return self.patch.constant(&format!("{}_bias", self.graph.name(w)), tensor);
        };
        self.successor(b, tensor)
    }

    fn add_weight(
        &mut self,
        w: ValueId,
        q: &QuantizedWeight,
        (channels, transpose, few): (usize, bool, bool),
    ) -> Result<Weight> {
        let name = self.graph.name(w);
        let tensor = if transpose { super::weights::transpose8(&q.data)? } else { q.data.clone() };
        let dtype = tensor.dtype;
        let data = if few {
            let (dims, codes) = (tensor.dims.clone(), tensor.to_i64()?);
            let packed = super::weight_only::nibbles(&codes, &dims, dtype == DType::I8);
            let packed = self.successor(w, packed);
            let mut node = Node::new(OpId::onnx("Cast"));
            node.set("to", i64::from(dtype.onnx()).into());
            let ty = Some(Type::tensor(dtype, &dims));
            self.patch.node(node, &[Some(packed)], &format!("{name}_codes"), ty)
        } else {
            self.successor(w, tensor)
        };
        let dims: &[usize] = if q.scale.len() == 1 && !self.plan.options.per_channel { &[] } else { &[q.scale.len()] };
        let scale = self.patch.constant(&format!("{name}_s"), Tensor::from_f32(dims, &q.scale));
        let zero_point = self.code_constant(dtype, dims, &vec![q.zero_point; q.scale.len()]);
        Ok(Weight { data, scale, zero_point, scales: q.scale.clone(), channels, bias: None })
    }

    /// The integer form of a constant: under its name where nobody else uses it.
    fn successor(&mut self, old: ValueId, tensor: Tensor) -> Ref {
        let new = self.patch.constant(&format!("{}_q", self.graph.name(old)), tensor);
        if self.graph.only_use(old).is_some() {
            self.patch.replace(old, new);
        }
        new
    }

    /// Codes between which the absorbed activation behind `id` clamps, where the type's own saturation does not.
    pub fn clamp_codes(&self, activation: NodeId, v: ValueId) -> Result<Option<(i32, i32)>> {
        let (low, high) = self.plan.structure.bounds(activation);
        let q = self.quantization(v)?;
        let (reach_low, reach_high) = q.range();
        let slack = q.scale * 1e-3; // the rounding of `scale * (q - zero_point)` itself
        let implied = low.is_none_or(|l| reach_low >= l - slack) && high.is_none_or(|h| reach_high <= h + slack);
        let (qmin, qmax) = q.eight.bounds();
        let bounds = (low.map_or(qmin, |l| q.code(l)), high.map_or(qmax, |h| q.code(h)));
        Ok((!implied).then_some(bounds))
    }
}
