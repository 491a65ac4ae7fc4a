//! Nodes that compute the same become one.

use crate::error::Result;
use crate::io::same_bytes;
use crate::ir::{Attribute, AttributeValue, Graph, Node, NodeId, Tensor, ValueId};
use crate::ops;
use crate::passes::{Effect, GraphRewrite, Patch, RuleContext};
use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};

/// Before: `y = op(x)`, `z = op(x)`. After: uses of `z` use `y`.
///
/// When: same operator, attributes (bit for bit), inputs and number of outputs; the operator is known, deterministic and
/// has no body; not both results are graph outputs.
/// Why it is equal: a deterministic operator gives equal results for equal inputs.
pub struct EliminateCommonSubexpression;

impl GraphRewrite for EliminateCommonSubexpression {
    fn name(&self) -> &'static str {
        "eliminate_common_subexpression"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn rewrite(&self, graph: &Graph, _: &RuleContext) -> Result<Vec<Patch>> {
        let mut search = Search { graph, seen: HashMap::new(), same: HashMap::new(), outputs: HashSet::new() };
        search.outputs.extend(graph.outputs().iter().copied());
        let order = graph.order()?;
        Ok(order.into_iter().filter_map(|id| search.visit(id)).collect())
    }
}

struct Search<'a> {
    graph: &'a Graph,
    /// Nodes by a hash of what they compute.
    seen: HashMap<u64, Vec<NodeId>>,
    /// What stands for a value from now on.
    same: HashMap<ValueId, ValueId>,
    /// Graph outputs, and values that become one.
    outputs: HashSet<ValueId>,
}

impl Search<'_> {
    fn visit(&mut self, id: NodeId) -> Option<Patch> {
        let node = self.graph.node(id);
        let known = ops::spec(&node.op).is_some_and(|s| s.deterministic());
        if !known || node.bodies().next().is_some() {
            return None;
        }
        let key = self.fingerprint(id)?;
        let first = self.seen.get(&key).into_iter().flatten().copied().find(|&other| self.equal(other, id));
        let Some(first) = first else {
            self.seen.entry(key).or_default().push(id);
            return None;
        };
        let pairs: Vec<(ValueId, ValueId)> = self.output_pairs(first, id)?;
        if pairs.iter().any(|(kept, gone)| self.outputs.contains(kept) && self.outputs.contains(gone)) {
            return None;
        }
        let mut patch = Patch::default();
        for (kept, gone) in pairs {
            patch.replace(gone, kept);
            self.same.insert(gone, kept);
            if self.outputs.contains(&gone) {
                self.outputs.insert(kept);
            }
        }
        Some(patch)
    }

    fn inputs(&self, id: NodeId) -> Vec<Option<ValueId>> {
        let same = |v: ValueId| self.same.get(&v).copied().unwrap_or(v);
        self.graph.node_inputs(id).into_iter().map(|v| v.map(same)).collect()
    }

    /// Outputs of two equal nodes side by side; `None` where one has an output that the other has not.
    fn output_pairs(&self, kept: NodeId, gone: NodeId) -> Option<Vec<(ValueId, ValueId)>> {
        let (kept, gone) = (self.graph.node_outputs(kept), self.graph.node_outputs(gone));
        let pair = |(k, g): (Option<ValueId>, Option<ValueId>)| match (k, g) {
            (Some(k), Some(g)) => Some(Some((k, g))),
            (None, None) => Some(None),
            _ => None,
        };
        let pairs: Option<Vec<_>> = kept.into_iter().zip(gone).map(pair).collect();
        Some(pairs?.into_iter().flatten().collect())
    }

    fn fingerprint(&self, id: NodeId) -> Option<u64> {
        let node = self.graph.node(id);
        let mut h = DefaultHasher::new();
        (&node.op, node.output_slots, self.inputs(id)).hash(&mut h);
        node.attributes.iter().try_for_each(|a| hash_attribute(a, &mut h))?;
        Some(h.finish())
    }

    fn equal(&self, a: NodeId, b: NodeId) -> bool {
        let (x, y) = (self.graph.node(a), self.graph.node(b));
        x.op == y.op && x.output_slots == y.output_slots && self.inputs(a) == self.inputs(b) && same_attributes(x, y)
    }
}

/// `None` for kinds that are not compared.
fn hash_attribute(a: &Attribute, h: &mut DefaultHasher) -> Option<()> {
    a.name.hash(h);
    match &a.value {
        AttributeValue::Float(x) => x.to_bits().hash(h),
        AttributeValue::Int(x) => x.hash(h),
        AttributeValue::String(x) => x.hash(h),
        AttributeValue::Floats(v) => v.iter().for_each(|x| x.to_bits().hash(h)),
        AttributeValue::Ints(v) => v.hash(h),
        AttributeValue::Strings(v) => v.hash(h),
        AttributeValue::Tensor(t) => {
            (t.dtype.onnx(), &t.dims).hash(h);
            t.bytes().ok()?.hash(h);
        }
        _ => return None,
    }
    Some(())
}

fn same_attributes(a: &Node, b: &Node) -> bool {
    let same = |(x, y): (&Attribute, &Attribute)| x.name == y.name && same_value(&x.value, &y.value);
    a.attributes.len() == b.attributes.len() && a.attributes.iter().zip(&b.attributes).all(same)
}

fn same_value(a: &AttributeValue, b: &AttributeValue) -> bool {
    use AttributeValue::{Float, Floats, Int, Ints, String, Strings, Tensor};
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    match (a, b) {
        (Float(x), Float(y)) => x.to_bits() == y.to_bits(),
        (Int(x), Int(y)) => x == y,
        (String(x), String(y)) => x == y,
        (Floats(x), Floats(y)) => bits(x) == bits(y),
        (Ints(x), Ints(y)) => x == y,
        (Strings(x), Strings(y)) => x == y,
        (Tensor(x), Tensor(y)) => same_data(x, y),
        _ => false,
    }
}

/// Whether two tensors are equal bit for bit. Strings and data that cannot be read are equal to nothing.
pub(super) fn same_data(x: &Tensor, y: &Tensor) -> bool {
    let same_type = x.dtype == y.dtype && x.dims == y.dims;
    same_type && matches!((x.bytes(), y.bytes()), (Ok(x), Ok(y)) if same_bytes(&x, &y))
}
