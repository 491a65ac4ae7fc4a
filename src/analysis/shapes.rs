//! Types of all values, from the operators' own rules and from shape arithmetic.

use crate::error::{Context, Error, Result};
use crate::ir::{AttributeValue, Dim, Graph, Model, NodeId, Tensor, TensorType, Type, ValueId};
use crate::ops;
use crate::ops::spec::{InferContext, Inferred, Known};
use std::collections::{HashMap, HashSet};

/// Fills in types that are missing and refines symbolic and unknown dimensions, in execution order and linear time.
/// Bodies are left as they are.
///
/// # Errors
/// A node that breaks its operator's rules, and an inferred type that contradicts a declared one: named by node and
/// value.
pub fn infer_types(model: &mut Model) -> Result<()> {
    let interface = Interface::of(model, &model.graph);
    let mut data: HashMap<ValueId, Vec<Dim>> = HashMap::new();
    for id in model.graph.order()? {
        let node = model.graph.node(id);
        let Some(spec) = ops::spec(&node.op) else { continue };
        let label = || model.graph.node(id).label();
        let cx = context(model, &model.graph, &interface, id, &data);
        let inferred = spec.infer(&cx).context(label)?;
        let outputs = model.graph.node_outputs(id);
        let mut updates = Vec::with_capacity(outputs.len());
        for (value, found) in outputs.into_iter().zip(inferred) {
            let Some(value) = value else { continue };
            let name = || format!("{}: output \"{}\"", label(), model.graph.name(value));
            let ty = merge(model.graph.ty(value), found.ty.as_ref()).context(name)?;
            updates.push((value, Inferred { data: checked(found.data, ty.as_ref()), ty }));
        }
        for (value, found) in updates {
            model.graph.value_mut(value).ty = found.ty;
            if let Some(elements) = found.data {
                data.insert(value, elements);
            }
        }
    }
    Ok(())
}

/// What is known of one node from its inputs' types and constants, without shape arithmetic: enough to ask for its role
/// in quantization or its cost. `graph` is the model's or a body in it. For many nodes, use [`Contexts`].
pub fn node_context<'a>(model: &'a Model, graph: &'a Graph, id: NodeId) -> InferContext<'a> {
    Contexts::new(model, graph).of(id)
}

/// [`node_context`] for all nodes of one graph.
pub struct Contexts<'a> {
    model: &'a Model,
    graph: &'a Graph,
    interface: Interface,
}

impl<'a> Contexts<'a> {
    /// Looks at the interface of `graph`, which is the model's or a body in it.
    pub fn new(model: &'a Model, graph: &'a Graph) -> Self {
        Self { model, graph, interface: Interface::of(model, graph) }
    }

    /// What is known of one node.
    pub fn of(&self, id: NodeId) -> InferContext<'a> {
        context(self.model, self.graph, &self.interface, id, &HashMap::new())
    }
}

/// The graph's interface as sets, so that a question about one value takes constant time.
struct Interface {
    /// Inputs whose default the caller may override.
    overridable: HashSet<ValueId>,
    outputs: HashSet<ValueId>,
}

/// Up to IR version 3 every initializer had to be listed as an input too, which said nothing: there, as in ONNX Runtime,
/// it is a constant.
pub(super) const FIRST_IR_WITH_DEFAULTS: i64 = 4;

impl Interface {
    fn of(model: &Model, graph: &Graph) -> Self {
        let defaults = model.ir_version() >= FIRST_IR_WITH_DEFAULTS;
        let overridable = graph.inputs().iter().copied().filter(|_| defaults).collect();
        Self { overridable, outputs: graph.outputs().iter().copied().collect() }
    }
}

fn context<'a>(
    model: &'a Model,
    graph: &'a Graph,
    interface: &Interface,
    id: NodeId,
    data: &HashMap<ValueId, Vec<Dim>>,
) -> InferContext<'a> {
    let node = graph.node(id);
    let constant = |v| constant_of(graph, v, &interface.overridable);
    let known = |v| Known { ty: graph.ty(v), constant: constant(v), data: data.get(&v).cloned() };
    let inputs = graph.node_inputs(id).into_iter().map(|v| v.map(known)).collect();
    let used = |v: &Option<ValueId>| v.is_some_and(|v| interface.outputs.contains(&v) || !graph.uses(v).is_empty());
    let used_outputs = graph.node_outputs(id).iter().rposition(used).map_or(0, |k| k + 1);
    InferContext { node, opset: model.opset(&node.op.domain).unwrap_or(1), inputs, used_outputs }
}

/// The tensor of an initializer that no caller can override, or of a Constant node, also behind Identity nodes.
fn constant_of<'a>(graph: &'a Graph, v: ValueId, overridable: &HashSet<ValueId>) -> Option<&'a Tensor> {
    // Exporters put at most one Identity before a shared weight; the bound keeps this constant time.
    const IDENTITIES: usize = 4;
    let mut v = v;
    for _ in 0..=IDENTITIES {
        if let Some(t) = &graph.value(v).init {
            return (!overridable.contains(&v)).then_some(t);
        }
        let (id, _) = graph.producer(v)?;
        let node = graph.node(id);
        if node.op.is("Constant") {
            let value = node.attribute("value")?;
            return if let AttributeValue::Tensor(t) = value { Some(t) } else { None };
        }
        v = graph.input(id, 0).filter(|_| node.op.is("Identity"))?;
    }
    None
}

/// Elements, if they belong to a tensor of rank 0 or 1 with that many of them.
fn checked(data: Option<Vec<Dim>>, ty: Option<&Type>) -> Option<Vec<Dim>> {
    let data = data.filter(|d| d.len() <= ops::DATA_LIMIT)?;
    let fits = match ty?.shape()? {
        [] => data.len() == 1,
        [n] => n.known() == Some(data.len()),
        _ => false,
    };
    fits.then_some(data)
}

/// A declared type and an inferred one as a single type. Where both name a dimension, the declared name stays.
fn merge(declared: Option<&Type>, inferred: Option<&Type>) -> Result<Option<Type>> {
    let (Some(declared), Some(inferred)) = (declared, inferred) else {
        return Ok(declared.or(inferred).cloned());
    };
    let (Type::Tensor(a), Type::Tensor(b)) = (declared, inferred) else { return Ok(Some(declared.clone())) };
    let contradiction = || Error::invalid(format!("it is declared {declared}, but the node makes {inferred}"));
    if a.elem != b.elem {
        return Err(contradiction());
    }
    let shape = match (&a.shape, &b.shape) {
        (Some(x), Some(y)) if x.len() != y.len() => return Err(contradiction()),
        (Some(x), Some(y)) => {
            let dims: Option<Vec<Dim>> = x.iter().zip(y).map(|(x, y)| ops::merge_dim(x, y)).collect();
            Some(dims.ok_or_else(contradiction)?)
        }
        (x, y) => x.as_ref().or(y.as_ref()).cloned(),
    };
    Ok(Some(Type::Tensor(TensorType { elem: a.elem, shape })))
}
