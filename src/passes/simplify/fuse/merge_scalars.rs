//! Constants that are multiplied or added one after the other become one.

use super::matching::{Look, floats, tensor_of};
use crate::error::Result;
use crate::ir::{DType, Graph, Node, NodeId, OpId, Tensor, ValueId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `t = Mul(x, c)`, `y = Mul(t, d)`. After: `y = Mul(x, c * d)`. The same for Div by a constant (two of which stay
/// a Div), and for Add and Sub of constants.
///
/// When: opset 7. The constants are f32 or f64, of one shape, or one has one element and no more axes than the other; `t`
/// has no other use and is no graph output. No element of the result is infinite, and no product vanishes. Added constants
/// have the same sign: `(x + c) - c` is how code rounds on purpose.
/// Why it is equal: both operations are associative up to rounding; the constant is computed in f64.
pub struct MergeScalars;

impl Rewrite for MergeScalars {
    fn name(&self) -> &'static str {
        "merge_scalars"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("Mul"), onnx("Div"), onnx("Add"), onnx("Sub")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        Ok(apply(Look::new(graph, cx), id))
    }
}

/// Multiplication or addition of a constant, or of its inverse.
struct Step<'a> {
    x: ValueId,
    constant: &'a Tensor,
    multiplies: bool,
    inverse: bool,
}

impl<'a> Step<'a> {
    fn of(look: Look<'a>, id: NodeId) -> Option<Self> {
        let (a, b) = look.operands(id)?;
        let (multiplies, inverse) = match &*look.graph.node(id).op.op_type {
            "Mul" => (true, false),
            "Div" => (true, true),
            "Add" => (false, false),
            "Sub" => (false, true),
            _ => return None,
        };
        let (x, c) = if look.constant(b).is_none() && !inverse { (b, a) } else { (a, b) };
        let float = |t: &&Tensor| matches!(t.dtype, DType::F32 | DType::F64);
        Some(Self { x, constant: look.constant(c).filter(float)?, multiplies, inverse })
    }

    /// The constant as a factor or as a summand.
    fn elements(&self, as_is: bool) -> Option<Vec<f64>> {
        let mut data = floats(self.constant)?;
        match (self.inverse && !as_is, self.multiplies) {
            (true, true) => data.iter_mut().for_each(|x| *x = 1.0 / *x),
            (true, false) => data.iter_mut().for_each(|x| *x = -*x),
            _ => {}
        }
        Some(data)
    }
}

fn apply(look: Look, id: NodeId) -> Option<Patch> {
    let graph = look.graph;
    let outer = Step::of(look, id).filter(|_| look.cx.opset >= 7)?;
    graph.only_use(outer.x)?;
    let (inner_id, _) = graph.producer(outer.x)?;
    let inner = Step::of(look, inner_id).filter(|s| s.multiplies == outer.multiplies)?;
    if look.constant(inner.x).is_some() || !graph.node(inner_id).op.domain.is_empty() {
        return None;
    }
    let both_inverse = inner.inverse && outer.inverse;
    let (c, d) = (inner.elements(both_inverse)?, outer.elements(both_inverse)?);
    let dims = common_dims(inner.constant, outer.constant)?;
    let n = c.len().max(d.len());
    let pairs: Vec<(f64, f64)> = (0..n).map(|k| (c[k % c.len()], d[k % d.len()])).collect();
    let merged: Vec<f64> = pairs.iter().map(|&(c, d)| if outer.multiplies { c * d } else { c + d }).collect();
    let tensor = tensor_of(inner.constant.dtype, dims, &merged)?;
    sound(&pairs, &floats(&tensor)?, outer.multiplies).then_some(())?;
    let y = graph.output(id, 0)?;
    let op = match (outer.multiplies, both_inverse) {
        (true, false) => "Mul",
        (true, true) => "Div",
        (false, false) => "Add",
        (false, true) => "Sub",
    };
    let node = Node { op: OpId::onnx(op), ..graph.node(id).clone() };
    let mut patch = Patch::default();
    let constant = patch.constant(&format!("{}_constant", graph.name(y)), tensor);
    let out = patch.node(node, &[Some(inner.x.into()), Some(constant)], graph.name(y), graph.ty(y).cloned());
    patch.replace(y, out);
    Some(patch)
}

/// Shape of the two constants together, where one of them has it already.
fn common_dims<'a>(a: &'a Tensor, b: &'a Tensor) -> Option<&'a [usize]> {
    if a.dtype != b.dtype || a.is_empty() || b.is_empty() {
        return None;
    }
    if a.dims == b.dims || (b.len() == 1 && b.rank() <= a.rank()) {
        return Some(&a.dims);
    }
    (a.len() == 1 && a.rank() <= b.rank()).then_some(&b.dims)
}

/// Whether no product vanished and no sum cancelled.
fn sound(pairs: &[(f64, f64)], merged: &[f64], multiplies: bool) -> bool {
    pairs.iter().zip(merged).all(|(&(c, d), m)| match multiplies {
        true => m.is_normal() || c == 0.0 || d == 0.0,
        false => c * d >= 0.0,
    })
}
