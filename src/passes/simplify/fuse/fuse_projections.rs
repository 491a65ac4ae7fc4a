//! Products of one value with several weights become one product.

use super::matching::Look;
use crate::error::Result;
use crate::ir::{AttributeValue, DType, Dim, Graph, Node, NodeId, OpId, Tensor, TensorData, Type, ValueId};
use crate::passes::{Effect, GraphRewrite, Patch, Ref, RuleContext};
use std::collections::HashMap;

/// Weights that are larger together stay apart: joining them copies them.
const MOST_BYTES: usize = 64 << 20;

/// Before: `q = Add(MatMul(x, Wq), bq)`, and the same for k and v. After: `q, k, v = Split(Add(MatMul(x, [Wq Wk Wv]),
/// [bq bk bv]))`. The same for Gemm.
///
/// When: opset 13. The weights are float constants in the file itself, of rank 2, of one type and one number of rows,
/// with no other use, and at most 64 MiB together. The biases are constants of one element per column; a product without
/// one gets zeros where another has one. Products whose value is used otherwise are joined without their Add. Gemm:
/// transA 0, alpha 1, beta 1, one transB. There must be fewer nodes after.
/// Why it is equal: each column of a product depends on that column of the weight only.
pub struct FuseProjections;

impl GraphRewrite for FuseProjections {
    fn name(&self) -> &'static str {
        "fuse_projections"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn rewrite(&self, graph: &Graph, cx: &RuleContext) -> Result<Vec<Patch>> {
        if cx.opset < 13 {
            return Ok(vec![]);
        }
        let look = Look::new(graph, cx);
        let mut positions: HashMap<Key, usize> = HashMap::new();
        let mut groups: Vec<(Key, Vec<Projection>)> = vec![];
        for id in graph.order()? {
            let Some((key, projection)) = Projection::of(look, id) else { continue };
            let k = *positions.entry(key).or_insert(groups.len());
            match groups.get_mut(k) {
                Some((_, members)) => members.push(projection),
                None => groups.push((key, vec![projection])),
            }
        }
        Ok(groups.iter().filter_map(|(key, members)| join(look, key, members)).collect())
    }
}

/// What projections must have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    x: ValueId,
    dtype: DType,
    rows: usize,
    gemm: bool,
    /// Gemm's transB: the weight is stored as [columns, rows].
    transposed: bool,
}

/// A product with a constant weight, and the constant added to it.
struct Projection<'a> {
    node: NodeId,
    weight: &'a Tensor,
    columns: usize,
    bias: Option<&'a Tensor>,
    y: ValueId,
}

impl<'a> Projection<'a> {
    fn of(look: Look<'a>, id: NodeId) -> Option<(Key, Self)> {
        let graph = look.graph;
        let node = graph.node(id);
        let gemm = node.op.is("Gemm");
        if !gemm && !node.op.is("MatMul") {
            return None;
        }
        let (x, w) = look.operands(id)?;
        let weight = graph.constant(w).filter(|t| t.rank() == 2 && graph.only_use(w).is_some())?;
        let in_file = matches!(weight.data, TensorData::Raw(_) | TensorData::Typed(_));
        let float = matches!(weight.dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16);
        let plain = node.float("alpha").unwrap_or(1.0) == 1.0 && node.float("beta").unwrap_or(1.0) == 1.0;
        let transposed = gemm && node.int("transB").unwrap_or(0) != 0;
        if !in_file || !float || weight.is_empty() || !plain || node.int("transA").unwrap_or(0) != 0 {
            return None;
        }
        let [a, b] = weight.dims[..] else { return None };
        let (rows, columns) = if transposed { (b, a) } else { (a, b) };
        let product = graph.output(id, 0)?;
        let (y, bias) = match graph.input(id, 2) {
            Some(b) => (product, Some(bias(look, b, weight.dtype, columns, true)?)),
            None if gemm => (product, None),
            None => biased(look, product, weight.dtype, columns).map_or((product, None), |(y, b)| (y, Some(b))),
        };
        let needed = graph.is_output(y) || graph.has_uses(y);
        let key = Key { x, dtype: weight.dtype, rows, gemm, transposed };
        needed.then_some((key, Self { node: id, weight, columns, bias, y }))
    }
}

/// The sum of a product and a constant for each column, where nothing else needs the product.
fn biased<'a>(look: Look<'a>, product: ValueId, dtype: DType, columns: usize) -> Option<(ValueId, &'a Tensor)> {
    let add = look.graph.only_use(product)?.node;
    let (a, b) = look.operands(add).filter(|_| look.is_op(add, "Add"))?;
    let other = if a == product { b } else { a };
    Some((look.graph.output(add, 0)?, bias(look, other, dtype, columns, false)?))
}

fn bias<'a>(look: Look<'a>, v: ValueId, dtype: DType, columns: usize, matrix: bool) -> Option<&'a Tensor> {
    let fits = |t: &&Tensor| t.dims[..] == [columns] || (matrix && t.dims[..] == [1, columns]);
    look.constant(v).filter(|t| t.dtype == dtype).filter(fits)
}

fn join(look: Look, key: &Key, members: &[Projection]) -> Option<Patch> {
    let graph = look.graph;
    let biased = members.iter().filter(|p| p.bias.is_some()).count();
    let (before, after) =
        if key.gemm { (members.len(), 2) } else { (members.len() + biased, 2 + usize::from(biased > 0)) };
    let bytes: usize = members.iter().map(|p| p.weight.stored_bytes()).sum();
    if members.len() < 2 || after >= before || bytes > MOST_BYTES {
        return None;
    }
    let first = members.first()?;
    look.cx.may_copy("fuse_projections", &graph.node(first.node).label(), bytes).then_some(())?;
    let columns: usize = members.iter().map(|p| p.columns).sum();
    let mut patch = Patch::default();
    let hint = graph.name(graph.input(first.node, 1)?);
    let weight = patch.constant(&format!("{hint}_joined"), joined_weight(key, members, columns)?);
    let hint = graph.name(first.y);
    let ty = joined_type(graph.ty(first.y), columns);
    let bias = match biased {
        0 => None,
        _ => Some(patch.constant(&format!("{hint}_joined_bias"), joined_bias(key, members, columns)?)),
    };
    let mut node = graph.node(first.node).clone();
    let rank = node.rank;
    node.shell = None;
    let mut inputs = vec![Some(Ref::Old(key.x)), Some(weight)];
    inputs.extend(bias.filter(|_| key.gemm).map(Some));
    let mut all = patch.node(node, &inputs, &format!("{hint}_joined"), ty.clone());
    if let Some(bias) = bias.filter(|_| !key.gemm) {
        let add = Node { rank, ..Node::new(OpId::onnx("Add")) };
        all = patch.node(add, &[Some(all), Some(bias)], &format!("{hint}_joined_sum"), ty);
    }
    let sizes: Option<Vec<i64>> = members.iter().map(|p| i64::try_from(p.columns).ok()).collect();
    let sizes = sizes?;
    let sizes = patch.constant(&format!("{hint}_columns"), Tensor::from_i64(&[sizes.len()], &sizes));
    let mut split = Node { rank, ..Node::new(OpId::onnx("Split")) };
    split.set("axis", AttributeValue::Int(-1));
    let outputs = members.iter().map(|p| Some((graph.name(p.y).to_string(), graph.ty(p.y).cloned()))).collect();
    let parts = patch.node_with(split, &[Some(all), Some(sizes)], outputs);
    for (member, part) in members.iter().zip(parts) {
        patch.replace(member.y, part?);
    }
    Some(patch)
}

/// The weights side by side.
fn joined_weight(key: &Key, members: &[Projection], columns: usize) -> Option<Tensor> {
    let size = key.dtype.bits() / 8;
    let parts: Option<Vec<_>> = members.iter().map(|p| p.weight.bytes().ok()).collect();
    let parts = parts?;
    if key.transposed {
        return Some(Tensor::raw(key.dtype, &[columns, key.rows], parts.concat()));
    }
    let mut data = Vec::with_capacity(key.rows * columns * size);
    for row in 0..key.rows {
        for (member, bytes) in members.iter().zip(&parts) {
            let width = member.columns * size;
            data.extend_from_slice(bytes.get(row * width..(row + 1) * width)?);
        }
    }
    Some(Tensor::raw(key.dtype, &[key.rows, columns], data))
}

/// The biases one after the other, zeros where there is none.
fn joined_bias(key: &Key, members: &[Projection], columns: usize) -> Option<Tensor> {
    let size = key.dtype.bits() / 8;
    let mut data = Vec::with_capacity(columns * size);
    for member in members {
        match member.bias {
            Some(bias) => data.extend_from_slice(&bias.bytes().ok()?),
            None => data.resize(data.len() + member.columns * size, 0),
        }
    }
    Some(Tensor::raw(key.dtype, &[columns], data))
}

fn joined_type(part: Option<&Type>, columns: usize) -> Option<Type> {
    let mut ty = part?.as_tensor()?.clone();
    if let Some(last) = ty.shape.as_mut().and_then(|s| s.last_mut()) {
        *last = Dim::Known(i64::try_from(columns).ok()?);
    }
    Some(Type::Tensor(ty))
}
