//! Which roundings a quantized model makes, found by the names that it shares with the original.

use crate::analysis::shapes::Contexts;
use crate::ir::Model;
use crate::ir::{DType, Graph, NodeId, Port, Tensor, ValueId};
use crate::ops;
use crate::passes::quantize::{Rounded, zero_point};
use std::collections::{BTreeSet, HashMap};

/// A rounding and the layer that it belongs to.
#[derive(Clone, Debug)]
pub struct Found {
    /// Node of a weight; producer of an activation, or the input itself.
    pub layer: String,
    /// Operator of that node; empty for a graph input.
    pub op: String,
    /// The weight or the value.
    pub value: String,
    /// What is done.
    pub rounded: Rounded,
    /// The weight before it, for its SQNR.
    pub exact: Option<Tensor>,
}

/// All roundings, in execution order: a layer's weight before its output.
pub fn roundings(original: &Model, quantized: &Model) -> Vec<Found> {
    let (p, q) = (&original.graph, &quantized.graph);
    let mut by_name: HashMap<&str, Option<NodeId>> = HashMap::new();
    for id in q.nodes().filter(|&id| !q.node(id).name.is_empty()) {
        by_name.entry(&q.node(id).name).and_modify(|n| *n = None).or_insert(Some(id));
    }
    let reader = Reader { p, q, by_name, contexts: Contexts::new(original, p) };
    let mut found = vec![];
    for v in p.required_inputs() {
        found.extend(reader.activation(v, p.name(v), ""));
    }
    for id in p.order().unwrap_or_default() {
        found.extend(reader.weight(id));
        let node = p.node(id);
        for v in p.node_outputs(id).into_iter().flatten() {
            found.extend(reader.activation(v, &node.name, &node.op.op_type));
        }
    }
    found
}

struct Reader<'a> {
    p: &'a Graph,
    q: &'a Graph,
    by_name: HashMap<&'a str, Option<NodeId>>,
    contexts: Contexts<'a>,
}

impl Reader<'_> {
    /// The node of the quantized model with this name, where there is one alone.
    fn counterpart(&self, name: &str) -> Option<NodeId> {
        self.by_name.get(name).copied().flatten()
    }

    fn weight(&self, id: NodeId) -> Option<Found> {
        let node = self.p.node(id);
        let other = self.counterpart(&node.name)?;
        let roles = ops::spec(&node.op)?.stored_weights(&self.contexts.of(id));
        let mut inputs = vec![];
        let (mut value, mut exact) = (None, None);
        for role in &roles {
            let Some(v) = self.p.input(id, role.slot) else { continue };
            let Some(tensor) = self.p.constant(v) else { continue };
            let Some(rounded) = self.stored(other, role.slot, tensor, node.int("transB").unwrap_or(0) != 0) else {
                continue;
            };
            if value.is_none() {
                (value, exact) = (Some(self.p.name(v).to_string()), Some(tensor.clone()));
            }
            inputs.push((role.slot, rounded));
        }
        let value = value?;
        if let Some(bias) = self.bias(other) {
            inputs.push((2, bias));
        }
        let (layer, op) = (node.name.to_string(), node.op.to_string());
        let rounded = Rounded::Weight { node: layer.clone(), inputs };
        Some(Found { layer, op, value, rounded, exact })
    }

    /// The weight that a node of the quantized model has at the place of the original's `slot`.
    fn stored(&self, id: NodeId, slot: usize, like: &Tensor, transposed: bool) -> Option<Tensor> {
        let (q, node) = (self.q, self.q.node(id));
        let at = |k: usize| q.input(id, k);
        let (codes, scale, zero, axis) = match &*node.op.op_type {
            "QLinearConv" => (at(3)?, at(4)?, at(5), 0),
            "QLinearMatMul" => (at(3)?, at(4)?, at(5), 1),
            "QGemm" => (at(3)?, at(4)?, at(5), usize::from(node.int("transB").unwrap_or(0) == 0)),
            _ => return self.traced(at(slot)?).filter(|t| t.dims == like.dims),
        };
        let zero = zero.and_then(|z| q.constant(z));
        let t = dequantized(q.constant(codes)?, q.constant(scale)?, zero, axis)?;
        let flipped = &*node.op.op_type == "QLinearMatMul" && transposed;
        let t = if flipped { transpose(&t)? } else { t };
        (t.dims == like.dims).then_some(t)
    }

    /// What DequantizeLinear, Cast and Reshape make of a constant; `None` where nothing is rounded.
    fn traced(&self, v: ValueId) -> Option<Tensor> {
        let q = self.q;
        let (id, _) = q.producer(v)?;
        let node = q.node(id);
        let input = |k: usize| q.input(id, k);
        match &*node.op.op_type {
            "DequantizeLinear" if node.int("block_size").unwrap_or(0) == 0 => {
                let codes = q.constant(input(0)?)?;
                let axis = node.int("axis").unwrap_or(1);
                let axis = if axis < 0 { axis + codes.rank() as i64 } else { axis };
                let zero = input(2).and_then(|z| q.constant(z));
                dequantized(codes, q.constant(input(1)?)?, zero, usize::try_from(axis).ok()?)
            }
            "Cast" => {
                let t = q.constant(input(0)?)?;
                Some(Tensor::from_f32(&t.dims, &t.to_f32().ok()?))
            }
            "Reshape" => {
                let t = self.traced(input(0)?)?;
                let dims = q.constant(input(1)?)?.to_i64().ok()?;
                let dims: Option<Vec<usize>> = dims.into_iter().map(|d| usize::try_from(d).ok()).collect();
                Some(Tensor { dims: dims?, ..t })
            }
            _ => None,
        }
    }

    fn bias(&self, id: NodeId) -> Option<Tensor> {
        let (q, node) = (self.q, self.q.node(id));
        let at = |k: usize| q.input(id, k);
        let (slot, a, b) = match &*node.op.op_type {
            "QLinearConv" => (8, 1, 4),
            "QGemm" => (6, 1, 4),
            "Conv" | "Gemm" => return self.traced(at(2)?),
            _ => return None,
        };
        let codes = q.constant(at(slot)?)?;
        let x = q.constant(at(a)?)?.scalar_f32()?;
        let w = q.constant(at(b)?)?.to_f32().ok()?;
        let scale: Vec<f32> = w.iter().map(|w| w * x).collect();
        dequantized(codes, &Tensor::from_f32(&[scale.len()], &scale), None, 0)
    }

    fn activation(&self, v: ValueId, layer: &str, op: &str) -> Option<Found> {
        let name = self.p.name(v);
        if self.p.ty(v).and_then(|t| t.elem()) != Some(DType::F32) || self.p.constant(v).is_some() {
            return None;
        }
        let codes = self.q.find(&format!("{name}_q"))?;
        let (scale, zero_point) = self.parameters(codes)?;
        // In the quantized model, who takes the value itself takes it as it was, unless it is dequantized.
        let float = self.q.find(name).filter(|&f| self.q.ty(f).and_then(|t| t.elem()) == Some(DType::F32));
        let dequantizes = |f: ValueId| {
            let made_by = self.q.producer(f).map(|(n, _)| &self.q.node(n).op);
            made_by.is_some_and(|op| op.is("DequantizeLinear"))
        };
        let exact = float.filter(|&f| !dequantizes(f));
        let spared: BTreeSet<String> = exact
            .map(|f| self.q.uses(f).into_iter().map(|u| self.q.node(u.node).name.to_string()).collect())
            .unwrap_or_default();
        let rounded = Rounded::Activation {
            value: name.to_string(),
            scale,
            zero_point,
            spared: spared.into_iter().filter(|n| !n.is_empty()).collect(),
            spared_output: exact.is_some_and(|f| self.q.is_output(f)),
        };
        let (layer, op, value) = (layer.to_string(), op.to_string(), name.to_string());
        Some(Found { layer, op, value, rounded, exact: None })
    }

    /// Scale and zero point of codes, from a node that makes or takes them.
    fn parameters(&self, codes: ValueId) -> Option<(f32, Tensor)> {
        let q = self.q;
        let dtype = q.ty(codes).and_then(|t| t.elem()).or_else(|| q.constant(codes).map(|t| t.dtype))?;
        let pair = |id: NodeId, scale: usize, zero: usize| {
            let s = q.constant(q.input(id, scale)?)?.scalar_f32()?;
            let z = q.input(id, zero).and_then(|z| q.constant(z)?.scalar_i64()).unwrap_or(0);
            Some((s, zero_point(dtype, z)?))
        };
        for u in q.uses(codes) {
            let Port::In(slot) = u.port else { continue };
            let found = match (&*q.node(u.node).op.op_type, slot) {
                ("DequantizeLinear" | "QLinearConv" | "QLinearMatMul" | "QGemm" | "QLinearAdd" | "QLinearMul", 0) => {
                    pair(u.node, 1, 2)
                }
                ("QLinearAdd" | "QLinearMul" | "QLinearMatMul", 3) => pair(u.node, 4, 5),
                _ => None,
            };
            if found.is_some() {
                return found;
            }
        }
        let (id, _) = q.producer(codes)?;
        match &*q.node(id).op.op_type {
            "QuantizeLinear" => pair(id, 1, 2),
            "QLinearConv" | "QLinearMatMul" | "QLinearAdd" | "QLinearMul" => pair(id, 6, 7),
            _ => None,
        }
    }
}

/// `(codes - zero) * scale`, with one scale or one for each position along `axis`.
fn dequantized(codes: &Tensor, scale: &Tensor, zero: Option<&Tensor>, axis: usize) -> Option<Tensor> {
    let (scale, data) = (scale.to_f32().ok()?, codes.to_i64().ok()?);
    let zero = zero.map(Tensor::to_i64).transpose().ok()?.unwrap_or_else(|| vec![0]);
    let inner: usize = codes.dims.get(axis + 1..).map_or(1, |d| d.iter().product());
    let count = codes.dims.get(axis).copied().unwrap_or(1).max(1);
    let at =
        |len: usize, k: usize| if len == 1 { Some(0) } else { Some(k / inner.max(1) % count).filter(|&i| i < len) };
    let mut out = Vec::with_capacity(data.len());
    for (k, q) in data.iter().enumerate() {
        let (s, z) = (scale[at(scale.len(), k)?], zero[at(zero.len(), k)?]);
        out.push(s * (q - z) as f32);
    }
    Some(Tensor::from_f32(&codes.dims, &out))
}

fn transpose(t: &Tensor) -> Option<Tensor> {
    let [rows, columns] = t.dims[..] else { return None };
    let data = t.to_f32().ok()?;
    let out: Vec<f32> =
        (0..columns).flat_map(|c| (0..rows).map(move |r| (r, c))).map(|(r, c)| data[r * columns + c]).collect();
    Some(Tensor::from_f32(&[columns, rows], &out))
}
