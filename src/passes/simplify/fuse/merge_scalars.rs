//! Constants that are multiplied or added one after the other become one.

use super::matching::{Look, floats, tensor_of};
use crate::error::Result;
use crate::ir::{DType, Graph, Node, NodeId, OpId, Tensor, ValueId};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `t = Mul(x, c)`, `y = Mul(t, d)`. After: `y = Mul(x, c * d)`. The same for Div by a constant (two of which stay
/// a Div), and for Add and Sub of constants.
///
/// When: opset 7. The constants are f32 or f64, and one of them has the shape of both together; `t` has no other use and
/// is no graph output. No element of the result is infinite, and no product vanishes. The sum of added constants does not
/// vanish beside them: `(x + c) - c` is how code rounds on purpose.
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
    let (c, d) = (repeated(&c, &inner.constant.dims, dims), repeated(&d, &outer.constant.dims, dims));
    let pairs: Vec<(f64, f64)> = c.into_iter().zip(d).collect();
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
    let within = |small: &[usize], large: &[usize]| {
        let missing = large.len().checked_sub(small.len());
        missing.is_some_and(|m| small.iter().zip(&large[m..]).all(|(&s, &l)| s == 1 || s == l))
    };
    if within(&b.dims, &a.dims) {
        return Some(&a.dims);
    }
    within(&a.dims, &b.dims).then_some(&b.dims)
}

/// Elements of a constant of shape `from`, broadcast to `to`, which has no fewer axes.
fn repeated(data: &[f64], from: &[usize], to: &[usize]) -> Vec<f64> {
    if from == to {
        return data.to_vec();
    }
    let missing = to.len() - from.len();
    let source = |mut position: usize| {
        let (mut index, mut stride) = (0, 1);
        for (axis, &size) in to.iter().enumerate().rev() {
            let own = axis.checked_sub(missing).map_or(1, |k| from[k]);
            index += if own == 1 { 0 } else { position % size * stride };
            stride *= own;
            position /= size;
        }
        index
    };
    (0..to.iter().product()).map(|position| data[source(position)]).collect()
}

/// Whether no product vanished, and the sums did not vanish beside what was added.
fn sound(pairs: &[(f64, f64)], merged: &[f64], multiplies: bool) -> bool {
    if multiplies {
        return pairs.iter().zip(merged).all(|(&(c, d), m)| m.is_normal() || c == 0.0 || d == 0.0);
    }
    let largest = |data: &mut dyn Iterator<Item = f64>| data.fold(0.0f64, |m, x| m.max(x.abs()));
    let parts = largest(&mut pairs.iter().flat_map(|&(c, d)| [c, d]));
    8.0 * largest(&mut merged.iter().copied()) >= parts
}
