//! Types of all values, from the operators' own rules and from shape arithmetic.

use crate::error::{Context, Error, Result};
use crate::ir::{AttributeValue, Dim, Graph, Model, NodeId, Tensor, TensorType, Type, ValueId};
use crate::ops;
use crate::ops::spec::{InferContext, Inferred, Known};
use std::collections::{HashMap, HashSet};

/// Integer tensors of rank 0 or 1 as far as their elements are known, symbolically too.
pub type ShapeData = HashMap<ValueId, Vec<Dim>>;

/// What inference found out beside the types, which it writes into the graph.
#[derive(Default)]
pub struct Facts {
    /// Elements of the graph's own values.
    pub data: ShapeData,
    /// The same for the bodies of a node, in the order of [`crate::ir::Node::bodies`].
    pub bodies: HashMap<NodeId, Vec<Facts>>,
    /// Declared types that the nodes contradict; the nodes' word was taken.
    pub corrected: Vec<String>,
}

/// The graphs around a body: what a captured value is, by name.
pub struct Scope<'a> {
    graph: &'a Graph,
    data: &'a ShapeData,
    defaults: bool,
    parent: Option<&'a Scope<'a>>,
}

impl<'a> Scope<'a> {
    /// The scope of the bodies in `graph`, whose own enclosing graphs are `parent`.
    pub fn new(model: &Model, graph: &'a Graph, data: &'a ShapeData, parent: Option<&'a Scope<'a>>) -> Self {
        Self { graph, data, defaults: model.ir_version() >= FIRST_IR_WITH_DEFAULTS, parent }
    }

    /// What is known of the outer value with this name.
    pub fn known(&self, name: &str) -> Known<'a> {
        let mut scope = Some(self);
        while let Some(s) = scope {
            if let Some(v) = s.graph.find(name).filter(|&v| !s.graph.is_outer(v)) {
                let overridable = |v: ValueId| s.defaults && s.graph.is_input(v);
                let constant = constant_of(s.graph, v, &overridable);
                return Known { ty: s.graph.ty(v), constant, data: s.data.get(&v).cloned() };
            }
            scope = s.parent;
        }
        Known::default()
    }
}

/// Fills in types that are missing and refines symbolic and unknown dimensions, in execution order and linear time,
/// bodies included. A declared dimension that a node contradicts gives way: ONNX Runtime, too, goes by the nodes.
///
/// # Errors
/// A node that breaks its operator's rules or makes another element type than is declared: named by node and value.
pub fn infer_types(model: &mut Model) -> Result<()> {
    infer(model).map(|_| ())
}

/// [`infer_types`], keeping what else it found out.
///
/// # Errors
/// As [`infer_types`].
pub fn infer(model: &mut Model) -> Result<Facts> {
    let mut graph = std::mem::take(&mut model.graph);
    let facts = infer_graph(model, &mut graph, None);
    model.graph = graph;
    facts
}

/// `model` gives the operator sets; its own graph is not looked at.
fn infer_graph(model: &Model, graph: &mut Graph, scope: Option<&Scope>) -> Result<Facts> {
    let interface = Interface::of(model, graph);
    let mut facts = Facts::default();
    if let Some(scope) = scope {
        for v in graph.outer_values() {
            let outer = scope.known(graph.name(v));
            if outer.ty.is_some() {
                graph.value_mut(v).ty = outer.ty.cloned();
            }
        }
    }
    for id in graph.order()? {
        if graph.node(id).bodies().next().is_some() {
            let inner = infer_bodies(model, graph, id, &facts.data, scope)?;
            facts.corrected.extend(inner.iter().flat_map(|f| f.corrected.iter().cloned()));
            facts.bodies.insert(id, inner);
        }
        let node = graph.node(id);
        let Some(spec) = ops::spec(&node.op) else { continue };
        let label = || graph.node(id).label();
        let cx = context(model, graph, &interface, id, &facts.data, scope);
        let inferred = spec.infer(&cx).context(label)?;
        let outputs = graph.node_outputs(id);
        let mut updates = Vec::with_capacity(outputs.len());
        for (value, found) in outputs.into_iter().zip(inferred) {
            let Some(value) = value else { continue };
            let name = || format!("{}: output \"{}\"", label(), graph.name(value));
            let declared = graph.ty(value);
            let public = interface.outputs.contains(&value);
            let ty = match merge(declared, found.ty.as_ref(), public).context(name)? {
                Merged::Agree(ty) => ty,
                Merged::Contradiction(ty) => {
                    let made = found.ty.as_ref().map(|t| t.to_string()).unwrap_or_default();
                    let declared = declared.map(|t| t.to_string()).unwrap_or_default();
                    facts.corrected.push(format!("{}: it is declared {declared}, but the node makes {made}", name()));
                    Some(ty)
                }
            };
            let ty = if public { ty } else { ty.map(named) };
            updates.push((value, Inferred { data: checked(found.data, ty.as_ref()), ty }));
        }
        for (value, found) in updates {
            graph.value_mut(value).ty = found.ty;
            if let Some(elements) = found.data {
                facts.data.insert(value, elements);
            }
        }
    }
    Ok(facts)
}

fn infer_bodies(
    model: &Model,
    graph: &mut Graph,
    id: NodeId,
    data: &ShapeData,
    parent: Option<&Scope>,
) -> Result<Vec<Facts>> {
    // The bodies are taken out of the graph that they look at.
    let mut attributes = std::mem::take(&mut graph.node_mut(id).attributes);
    let scope = Scope::new(model, graph, data, parent);
    let bodies = attributes.iter_mut().flat_map(|a| match &mut a.value {
        AttributeValue::Graph(g) => std::slice::from_mut(&mut **g),
        AttributeValue::Graphs(gs) => gs,
        _ => &mut [],
    });
    let inner: Result<Vec<Facts>> = bodies.map(|body| infer_graph(model, body, Some(&scope))).collect();
    graph.node_mut(id).attributes = attributes;
    inner.context(|| graph.node(id).label())
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
    data: Option<&'a ShapeData>,
}

impl<'a> Contexts<'a> {
    /// Looks at the interface of `graph`, which is the model's or a body in it.
    pub fn new(model: &'a Model, graph: &'a Graph) -> Self {
        Self { model, graph, interface: Interface::of(model, graph), data: None }
    }

    /// The same with what shape arithmetic has found out.
    pub fn with_data(model: &'a Model, graph: &'a Graph, data: &'a ShapeData) -> Self {
        Self { data: Some(data), ..Self::new(model, graph) }
    }

    /// What is known of one node.
    pub fn of(&self, id: NodeId) -> InferContext<'a> {
        let none = HashMap::new();
        context(self.model, self.graph, &self.interface, id, self.data.unwrap_or(&none), None)
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
    model: &Model,
    graph: &'a Graph,
    interface: &Interface,
    id: NodeId,
    data: &ShapeData,
    scope: Option<&Scope<'a>>,
) -> InferContext<'a> {
    let node = graph.node(id);
    let overridable = |v: ValueId| interface.overridable.contains(&v);
    let known = |v| match scope {
        Some(scope) if graph.is_outer(v) => Known { ty: graph.ty(v), ..scope.known(graph.name(v)) },
        _ => Known { ty: graph.ty(v), constant: constant_of(graph, v, &overridable), data: data.get(&v).cloned() },
    };
    let inputs = graph.node_inputs(id).into_iter().map(|v| v.map(known)).collect();
    let used = |v: &Option<ValueId>| v.is_some_and(|v| interface.outputs.contains(&v) || graph.has_uses(v));
    let used_outputs = graph.node_outputs(id).iter().rposition(used).map_or(0, |k| k + 1);
    InferContext { node, opset: model.opset(&node.op.domain).unwrap_or(1), inputs, used_outputs }
}

/// The tensor of an initializer that no caller can override, or of a Constant node, also behind Identity nodes.
fn constant_of<'a>(graph: &'a Graph, v: ValueId, overridable: &dyn Fn(ValueId) -> bool) -> Option<&'a Tensor> {
    // Exporters put at most one Identity before a shared weight; the bound keeps this constant time.
    const IDENTITIES: usize = 4;
    let mut v = v;
    for _ in 0..=IDENTITIES {
        if let Some(t) = &graph.value(v).init {
            return (!overridable(v)).then_some(t);
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

/// The type with a symbol for each size that is not known.
fn named(mut ty: Type) -> Type {
    if let Type::Tensor(TensorType { shape: Some(shape), .. }) = &mut ty {
        shape.iter_mut().filter(|d| **d == Dim::Unknown).for_each(|d| *d = Dim::anonymous());
    }
    ty
}

/// A declared type and an inferred one as a single type.
enum Merged {
    Agree(Option<Type>),
    Contradiction(Type),
}

/// Where both name a dimension, a graph output (`public`) keeps the declared name and any other value takes the inferred
/// one, which is known to equal the names that it comes from. A contradiction is settled by the node.
fn merge(declared: Option<&Type>, inferred: Option<&Type>, public: bool) -> Result<Merged> {
    // Some exporters declare a value without saying anything of it.
    let declared = declared.filter(|ty| !matches!(ty, Type::Other(p) if p.value.is_none()));
    let (Some(declared), Some(inferred)) = (declared, inferred) else {
        return Ok(Merged::Agree(declared.or(inferred).cloned()));
    };
    let (Type::Tensor(a), Type::Tensor(b)) = (declared, inferred) else {
        return Ok(Merged::Agree(Some(declared.clone())));
    };
    if a.elem != b.elem {
        return Err(Error::invalid(format!("it is declared {declared}, but the node makes {inferred}")));
    }
    let shape = match (&a.shape, &b.shape) {
        (Some(x), Some(y)) if x.len() != y.len() => return Ok(Merged::Contradiction(inferred.clone())),
        (Some(x), Some(y)) => {
            let pairs = x.iter().zip(y).map(|(x, y)| if public { (x, y) } else { (y, x) });
            let dims: Option<Vec<Dim>> = pairs.map(|(first, second)| ops::merge_dim(first, second)).collect();
            match dims {
                Some(dims) => Some(dims),
                None => return Ok(Merged::Contradiction(inferred.clone())),
            }
        }
        (x, y) => x.as_ref().or(y.as_ref()).cloned(),
    };
    Ok(Merged::Agree(Some(Type::Tensor(TensorType { elem: a.elem, shape }))))
}
