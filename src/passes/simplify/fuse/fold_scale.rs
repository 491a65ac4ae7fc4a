//! Multiplication by a number folds into a linear op further up.

use super::matching::{Look, floats, tensor_of};
use crate::error::Result;
use crate::ir::{DType, Graph, NodeId, Tensor, ValueId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};
use std::ops::Range;

/// Before: `m = MatMul(x, W)`, `a = Add(m, b)`, `t = Transpose(Reshape(a))`, `s = MatMul(t, k)`, `y = Div(s, c)`, as
/// attention has it. After: `W / c` and `b / c`, and no Div. Between may be Transpose, Reshape, Unsqueeze, Squeeze, Flatten,
/// products (the way goes up one operand), Add of a constant, and a
/// Split along the last axis, above which only the columns of that part are multiplied.
///
/// When: opset 7. `c` has one element and adds no axis. Each value on the way has no other use and is no graph output. The
/// way ends at a MatMul, Gemm (alpha 1, beta 1), Conv or ConvTranspose with an f32 weight that has no other use, and a bias
/// that is an f32 constant, or absent; together at most 16 MiB. The new parameters are finite.
/// Why it is equal: all of it is linear, so the number may be multiplied anywhere. It is computed in f64.
pub struct FoldScale;

impl Rewrite for FoldScale {
    fn name(&self) -> &'static str {
        "fold_scale"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("Mul"), onnx("Div")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        Ok(apply(Look::new(graph, cx), id))
    }
}

/// A longer way is not worth the search, which is repeated for every node.
const LONGEST_WAY: usize = 16;

/// A Split into more parts is no attention's, and each part would cost a search of all.
const MOST_PARTS: u32 = 64;

fn apply(look: Look, id: NodeId) -> Option<Patch> {
    let graph = look.graph;
    if look.cx.opset < 7 {
        return None;
    }
    let (a, b) = look.operands(id)?;
    let (v, c) = match look.scalar(b) {
        Some(c) => (a, c),
        None if look.is_op(id, "Mul") => (b, look.scalar(a)?),
        None => return None,
    };
    if c.dtype != DType::F32 || !look.keeps_shape(v, c.rank) {
        return None;
    }
    let factor = if look.is_op(id, "Div") { 1.0 / c.value } else { c.value };
    if !factor.is_normal() {
        return None;
    }
    let mut way = Way { look, steps: 0, found: vec![] };
    way.climb(v, None).then_some(())?;
    let constants = way.found.iter().map(|s| look.constant(s.value).map_or(0, Tensor::stored_bytes));
    worth_copying(look, id, "fold_scale", constants.sum()).then_some(())?;
    let mut patch = Patch::default();
    for scaled in way.found {
        let old = look.constant(scaled.value)?;
        let data = floats(old)?.into_iter().enumerate();
        let data: Vec<f64> = data.map(|(k, x)| if scaled.covers(k) { x * factor } else { x }).collect();
        let new = patch.constant(graph.name(scaled.value), tensor_of(DType::F32, &old.dims, &data)?);
        if scaled.replaced {
            patch.replace(scaled.value, new);
        } else {
            patch.set_input(scaled.node, scaled.slot, Some(new));
        }
    }
    patch.replace(graph.output(id, 0)?, v);
    Some(patch)
}

/// Larger weights than these are not copied to save one multiplication by a number.
const MOST_BYTES: usize = 16 << 20;

/// Whether constants of so many bytes are worth a copy each in order to be rid of node `id`, a multiplication.
pub(super) fn worth_copying(look: Look, id: NodeId, rule: &str, bytes: usize) -> bool {
    let label = look.graph.node(id).label();
    if bytes > MOST_BYTES {
        look.cx.skip(rule, &label, "the weight that would take up the number is too large to copy for that");
        return false;
    }
    look.cx.may_copy(rule, &label, bytes)
}

/// Columns (elements of the last axis) of a product.
#[derive(Clone)]
struct Columns {
    part: Range<usize>,
    total: usize,
}

/// A constant that the number is multiplied into.
struct Scaled {
    value: ValueId,
    node: NodeId,
    slot: usize,
    /// Whether the node is its only use, so that the new one takes its place and name.
    replaced: bool,
    /// Only these columns, where not all of it; and how many elements of the constant follow each other in a column.
    columns: Option<(Columns, usize)>,
}

impl Scaled {
    /// Whether the element at a row-major position is multiplied.
    fn covers(&self, position: usize) -> bool {
        self.columns.as_ref().is_none_or(|(c, run)| c.part.contains(&(position / run % c.total)))
    }
}

/// The way up from the multiplication to a weight, and the constants to multiply instead.
struct Way<'a> {
    look: Look<'a>,
    steps: usize,
    found: Vec<Scaled>,
}

impl Way<'_> {
    /// Goes up from `v`, of which `columns` are to be multiplied, or all. The depth is bounded by the number of steps.
    fn climb(&mut self, v: ValueId, columns: Option<&Columns>) -> bool {
        let graph = self.look.graph;
        self.steps += 1;
        let Some((id, slot)) = graph.only_use(v).and_then(|_| graph.producer(v)) else { return false };
        let node = graph.node(id);
        if self.steps > LONGEST_WAY || !node.op.domain.is_empty() || (slot != 0 && !node.op.is("Split")) {
            return false;
        }
        match (&*node.op.op_type, columns) {
            ("Transpose" | "Reshape" | "Unsqueeze" | "Squeeze" | "Flatten", None) => {
                graph.input(id, 0).is_some_and(|x| self.climb(x, None))
            }
            ("Split", None) => {
                let columns = split_columns(self.look, id, slot);
                graph.input(id, 0).zip(columns).is_some_and(|(x, columns)| self.climb(x, Some(&columns)))
            }
            ("Add", _) => {
                let Some((a, b)) = self.look.operands(id) else { return false };
                let (x, slot) = if self.look.constant(b).is_some() { (a, 1) } else { (b, 0) };
                self.addend(id, slot, columns) && self.climb(x, columns)
            }
            ("MatMul" | "Gemm", _) | ("Conv" | "ConvTranspose", None) => self.linear(id, columns),
            _ => false,
        }
    }

    fn linear(&mut self, id: NodeId, columns: Option<&Columns>) -> bool {
        let graph = self.look.graph;
        let node = graph.node(id);
        let Some((a, b)) = self.look.operands(id) else { return false };
        if self.look.constant(b).is_some() {
            let plain = node.float("alpha").unwrap_or(1.0) == 1.0 && node.float("beta").unwrap_or(1.0) == 1.0;
            let own = graph.constant(b).filter(|t| t.dtype == DType::F32 && graph.only_use(b).is_some());
            let Some(weight) = own.filter(|_| plain) else { return false };
            let columns_of_weight = match (columns, &weight.dims[..]) {
                (None, _) => None,
                (Some(c), &[rows, run]) if node.int("transB").unwrap_or(0) != 0 && rows == c.total && run > 0 => {
                    Some((c.clone(), run))
                }
                (Some(c), &[_, n]) if node.int("transB").unwrap_or(0) == 0 && n == c.total => Some((c.clone(), 1)),
                _ => return false,
            };
            self.found.push(Scaled { value: b, node: id, slot: 1, replaced: true, columns: columns_of_weight });
            return graph.input(id, 2).is_none() || self.addend(id, 2, columns);
        }
        // Above a product of two values, its columns are those of the second operand only.
        let mark = self.found.len();
        let mut up = |x| {
            self.found.truncate(mark);
            self.climb(x, None)
        };
        node.op.is("MatMul") && columns.is_none() && (up(a) || up(b))
    }

    /// Notes input `slot` of a node as a constant that is added.
    fn addend(&mut self, id: NodeId, slot: usize, columns: Option<&Columns>) -> bool {
        let Some(value) = self.look.graph.input(id, slot) else { return false };
        let Some(constant) = self.look.constant(value).filter(|t| t.dtype == DType::F32) else { return false };
        if columns.is_some_and(|c| constant.dims.last() != Some(&c.total)) {
            return false;
        }
        let replaced = self.look.graph.only_use(value).is_some() && self.look.graph.constant(value).is_some();
        self.found.push(Scaled { value, node: id, slot, replaced, columns: columns.map(|c| (c.clone(), 1)) });
        true
    }
}

/// The columns that output `slot` of a Split along the last axis has.
fn split_columns(look: Look, split: NodeId, slot: usize) -> Option<Columns> {
    let graph = look.graph;
    if graph.node(split).output_slots > MOST_PARTS {
        return None;
    }
    let axis = graph.node(split).int("axis").unwrap_or(0);
    let rank = look.rank(graph.input(split, 0)?);
    (axis == -1 || rank.is_some_and(|r| axis >= 0 && usize::try_from(axis).is_ok_and(|a| a + 1 == r))).then_some(())?;
    let width = |v: Option<ValueId>| graph.ty(v?)?.shape()?.last()?.known();
    let widths: Option<Vec<usize>> = graph.node_outputs(split).into_iter().map(width).collect();
    let widths = widths?;
    let start = widths.get(..slot)?.iter().sum::<usize>();
    Some(Columns { part: start..start + widths.get(slot)?, total: widths.iter().sum() })
}
