//! Weights that are stored in fewer bits although their layer computes in float: those of recurrent layers, of transposed
//! convolutions, of layers that have no integer form as they stand, and of everything in the bodies of If, Loop and Scan.

mod computed;
mod dynamic_lstm;
mod find;
mod rows;

pub use computed::has_computed_weights;
pub use dynamic_lstm::DynamicLstm;
pub use find::{Source, layer, stored_source};

use super::options::{Precision, QuantizeOptions};
use super::selection::Selection;
use super::structure::Structure;
use crate::error::{Context, Result};
use crate::ir::{DType, Graph, Model, Node, NodeId, OpId, Tensor, ValueId};
use crate::passes::{Effect, GraphRewrite, Patch, RuleContext};
use find::{Finder, Wanted};
use rows::{Rows, quantize_rows};
use std::collections::HashSet;

const NAME: &str = "store_weights";

/// Before: `y = LSTM(x, w, r, ...)`. After: `w = DequantizeLinear(w_q, w_s)`, the same for `r`, and the layer as it was.
///
/// When: the weight is a constant of f32 that layers with a role for it use, in this graph or, captured, in bodies, all of
/// them wanted in 8 bits and with the same rows. A weight that something else uses in float too stays: storing it twice
/// would make the file larger. A weight whose scales would take up what 8 bits save stays as well.
/// Loss: each element is rounded to one of 255 levels of its row. Where a layer is wanted in f16, its weights are stored in
/// that type behind a Cast.
pub struct StoreWeights {
    options: QuantizeOptions,
    selection: Selection,
    /// Nodes of the main graph that a plan takes care of.
    planned: HashSet<NodeId>,
}

impl StoreWeights {
    /// The rule for what the plan of these options leaves in float.
    ///
    /// # Errors
    /// As [`Structure::decide`].
    pub fn new(model: &Model, options: &QuantizeOptions) -> Result<Self> {
        let structure = Structure::decide(model, options)?;
        let planned = structure.integer_nodes().map(|(id, _)| id).collect();
        Ok(Self { options: options.clone(), selection: Selection::new(options)?, planned })
    }
}

impl GraphRewrite for StoreWeights {
    fn name(&self) -> &'static str {
        NAME
    }

    fn effect(&self) -> Effect {
        Effect::Lossy
    }

    fn rewrite(&self, graph: &Graph, cx: &RuleContext) -> Result<Vec<Patch>> {
        let none = HashSet::new();
        let planned = if cx.scope.is_none() { &self.planned } else { &none };
        let mut finder = Finder::new(cx.model, &self.selection);
        let mut patches = vec![];
        for v in graph.values() {
            let Some(tensor) = graph.constant(v).filter(|t| t.dtype == DType::F32 && !t.is_empty()) else { continue };
            let label = || graph.uses(v).first().map_or_else(String::new, |u| graph.node(u.node).label());
            match finder.wanted(graph, v, planned) {
                Wanted::No => {}
                Wanted::Differently => cx.skip(NAME, graph.name(v), "something else uses this weight in float"),
                Wanted::As(_, Precision::F16) => patches.extend(half(graph, v, tensor, cx)?),
                Wanted::As(rows, _) => {
                    patches.extend(self.eight(graph, v, tensor, &rows, cx).context(label)?);
                }
            }
        }
        Ok(patches)
    }
}

impl StoreWeights {
    fn eight(&self, graph: &Graph, v: ValueId, t: &Tensor, axes: &[usize], cx: &RuleContext) -> Result<Option<Patch>> {
        let name = graph.name(v);
        let Some(rows) = Rows::of(&t.dims, axes, self.options.per_channel) else { return Ok(None) };
        let q = quantize_rows(t, &rows, self.options.weights)?;
        if rows.count * size_of::<f32>() + t.len() >= t.len() * size_of::<f32>() {
            cx.skip(NAME, name, "it would take more room in 8 bits than in float");
            return Ok(None);
        }
        let mut patch = Patch::default();
        let dims = if rows.flat { vec![rows.count, t.len() / rows.count] } else { t.dims.clone() };
        let data = patch.constant(&format!("{name}_q"), Tensor { dims: dims.clone(), ..q.data });
        let scale_dims: &[usize] = if rows.axis.is_some() { &[rows.count] } else { &[] };
        let scale = patch.constant(&format!("{name}_s"), Tensor::from_f32(scale_dims, &q.scale));
        let mut inputs = vec![Some(data), Some(scale)];
        if q.zero_point != 0 {
            let codes = vec![q.zero_point as u8; rows.count];
            inputs.push(Some(patch.constant(&format!("{name}_zp"), Tensor::raw(q.data.dtype, scale_dims, codes))));
        }
        let mut node = at(graph, v, "DequantizeLinear");
        if let Some(axis) = rows.axis {
            node.set("axis", (axis as i64).into());
        }
        if !rows.flat {
            let float = patch.node(node, &inputs, name, graph.ty(v).cloned());
            patch.replace(v, float);
            return Ok(Some(patch));
        }
        let flat = patch.node(node, &inputs, &format!("{name}_rows"), None);
        let shape: Vec<i64> = t.dims.iter().map(|&d| d as i64).collect();
        let shape = patch.constant(&format!("{name}_shape"), Tensor::from_i64(&[shape.len()], &shape));
        let reshape = at(graph, v, "Reshape");
        let float = patch.node(reshape, &[Some(flat), Some(shape)], name, graph.ty(v).cloned());
        patch.replace(v, float);
        Ok(Some(patch))
    }
}

fn half(graph: &Graph, v: ValueId, t: &Tensor, cx: &RuleContext) -> Result<Option<Patch>> {
    let name = graph.name(v);
    let data = t.to_f32()?;
    if data.iter().any(|x| x.is_finite() && half::f16::from_f32(*x).is_infinite()) {
        cx.skip(NAME, name, "it holds numbers beyond the range of f16");
        return Ok(None);
    }
    let bytes: Vec<u8> = data.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
    let mut patch = Patch::default();
    let stored = patch.constant(&format!("{name}_f16"), Tensor::raw(DType::F16, &t.dims, bytes));
    let mut node = at(graph, v, "Cast");
    node.set("to", i64::from(DType::F32.onnx()).into());
    let float = patch.node(node, &[Some(stored)], name, graph.ty(v).cloned());
    patch.replace(v, float);
    Ok(Some(patch))
}

/// A node in the place of the first that uses the value.
fn at(graph: &Graph, v: ValueId, op: &str) -> Node {
    let mut node = Node::new(OpId::onnx(op));
    node.rank = graph.uses(v).first().map_or(0, |u| graph.node(u.node).rank);
    node
}
