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
}

impl<'a> Contexts<'a> {
    /// Looks at the interface of `graph`, which is the model's or a body in it.
    pub fn new(model: &'a Model, graph: &'a Graph) -> Self {
        Self { model, graph, interface: Interface::of(model, graph) }
    }

    /// What is known of one node.
    pub fn of(&self, id: NodeId) -> InferContext<'a> {
        context(self.model, self.graph, &self.interface, id, &HashMap::new(), None)
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

#[cfg(test)]
mod tests {
    use super::super::testing::{Builder, type_of};
    use super::*;
    use crate::ir::DType;
    use crate::ops::spec::{ComputeRole, QuantRole};

    fn i64s(v: &[i64]) -> Tensor {
        Tensor::from_i64(&[v.len()], v)
    }

    fn f32s(dims: &[usize]) -> Tensor {
        Tensor::from_f32(dims, &vec![0.5; dims.iter().product()])
    }

    #[test]
    fn shape_arithmetic_keeps_symbols() {
        let b = Builder::default().input("x", &["batch", "3", "4"]);
        let b =
            b.constant("zero", Tensor::from_i64(&[], &[0])).constant("axis", i64s(&[0])).constant("rest", i64s(&[-1]));
        let b = b.node("Shape", &["x"], &["s"], &[]).node("Gather", &["s", "zero"], &["n"], &[]);
        let b = b.node("Unsqueeze", &["n", "axis"], &["n1"], &[]);
        let b = b.node("Concat", &["n1", "rest"], &["to"], &[("axis", 0.into())]).node(
            "Reshape",
            &["x", "to"],
            &["y"],
            &[],
        );
        let mut model = b.model(13, &["y"]);
        infer_types(&mut model).unwrap();
        assert_eq!(type_of(&model, "y"), "float[batch, 12]");
        assert_eq!(type_of(&model, "n"), "int64[]");
    }

    #[test]
    fn a_size_without_a_name_equals_itself() {
        let b = Builder::default().input("x", &["n"]).node("NonZero", &["x"], &["z"], &[]);
        let b = b.node("Neg", &["z"], &["a"], &[]).node("Shape", &["a"], &["s"], &[]);
        let b = b.node("NonZero", &["a"], &["other"], &[]).node("Cast", &["s"], &["y"], &[("to", 6.into())]);
        let mut model = b.model(13, &["y", "other"]);
        let facts = infer(&mut model).unwrap();
        let value = |name: &str| model.graph.find(name).unwrap();
        let shape = |name| model.graph.ty(value(name)).unwrap().shape().unwrap();
        assert_eq!(shape("z"), shape("a"));
        assert_eq!(facts.data[&value("s")], shape("z"));
        assert_ne!(shape("z")[1], Dim::Unknown);
        assert_ne!(shape("z")[1], shape("other")[1]);
        assert_eq!(type_of(&model, "z"), "int64[1, ?]", "but it has no name to show");
        assert_eq!(
            crate::ir::Type::from_proto(&model.graph.ty(value("z")).unwrap().to_proto()).shape().unwrap()[1],
            Dim::Unknown
        );
    }

    #[test]
    fn an_if_makes_what_both_branches_make() {
        let text = |e: &str| {
            format!("g (bool k, float[n, 3] x, float[m] v) => (float y) {{ z = If (k) <
            then_branch = yes () => (float t) {{ t = Neg (x) }}, else_branch = no () => (float e) {{ {e} }} > y = Neg (z) }}")
        };
        let type_of_z = |e| {
            let mut model = crate::io::text::parse_graph(&text(e), 17).unwrap();
            infer_types(&mut model).unwrap();
            let z = model.graph.find("z").unwrap();
            model.graph.ty(z).map(Type::to_string)
        };
        assert_eq!(type_of_z("e = Abs (x)").unwrap(), "float[n, 3]");
        assert_eq!(type_of_z("c = Transpose (x) e = Abs (c)").unwrap(), "float[?, ?]");
        assert_eq!(type_of_z("e = Abs (v)").unwrap(), "float");
    }

    #[test]
    fn an_overridable_default_is_no_constant() {
        let b = || {
            let mut b = Builder::default().input("x", &["2", "6"]).constant("to", i64s(&[3, 4]));
            let to = b.graph.find("to").unwrap();
            let inputs = b.graph.inputs().iter().copied().chain([to]).collect();
            b.graph.set_inputs(inputs);
            b.node("Reshape", &["x", "to"], &["y"], &[]).model(13, &["y"])
        };
        let mut model = b();
        infer_types(&mut model).unwrap();
        assert_eq!(type_of(&model, "y"), "float[?, ?]");
        let mut model = b();
        model.shell.ir_version = Some(3);
        infer_types(&mut model).unwrap();
        assert_eq!(type_of(&model, "y"), "float[3, 4]");
    }

    #[test]
    fn errors_name_node_and_value() {
        let b = Builder::default().input("x", &["2", "6"]).constant("to", i64s(&[5, -1]));
        let mut model = b.node("Reshape", &["x", "to"], &["y"], &[]).model(13, &["y"]);
        let e = infer_types(&mut model).unwrap_err().to_string();
        assert!(e.starts_with("node \"n0\" (Reshape): invalid model: 12 elements"), "{e}");
        let mut model = Builder::default().input("x", &["2", "6"]).node("Relu", &["x"], &["y"], &[]).model(13, &["y"]);
        let y = model.graph.find("y").unwrap();
        model.graph.value_mut(y).ty = Some(Type::tensor(DType::F32, &[2, 7]));
        let e = infer(&mut model).unwrap().corrected.join("; ");
        assert!(e.starts_with("node \"n0\" (Relu): output \"y\":"), "{e}");
        assert!(e.contains("declared float[2, 7], but the node makes float[2, 6]"), "{e}");
        assert_eq!(type_of(&model, "y"), "float[2, 6]");
        let y = model.graph.find("y").unwrap();
        model.graph.value_mut(y).ty = Some(Type::tensor(DType::I64, &[2, 6]));
        let e = infer_types(&mut model).unwrap_err().to_string();
        assert!(e.contains("declared int64[2, 6], but the node makes float[2, 6]"), "{e}");
    }

    #[test]
    fn bodies_see_the_graphs_around_them() {
        let text = "<ir_version: 8, opset_import: [\"\" : 17]> g (float[n, 4] x, bool c) => (float[n, m] y) {
            y = If (c) <then_branch = t () => (float[?, ?] a) { s = Shape (x) a = Reshape (x, s) },
                        else_branch = e () => (float[?, ?] b) { b = Relu (x) }>
        }";
        let mut model = crate::io::text::parse_model(text).unwrap();
        let facts = infer(&mut model).unwrap();
        let id = model.graph.nodes().next().unwrap();
        for (body, name) in model.graph.node(id).bodies().zip(["a", "b"]) {
            assert_eq!(body.ty(body.find(name).unwrap()).unwrap().to_string(), "float[n, 4]");
        }
        let then = model.graph.node(id).bodies().next().unwrap();
        let s = then.find("s").unwrap();
        assert_eq!(facts.bodies[&id][0].data[&s], vec![Dim::Sym("n".into()), Dim::Known(4)]);
    }

    #[test]
    fn declared_symbols_are_refined() {
        let b = Builder::default().input("x", &["n", "6"]);
        let mut model = b.node("Relu", &["x"], &["y"], &[]).model(13, &["y"]);
        let y = model.graph.find("y").unwrap();
        let declared = vec![Dim::Unknown, Dim::Sym("features".into())];
        model.graph.value_mut(y).ty = Some(Type::Tensor(TensorType { elem: DType::F32, shape: Some(declared) }));
        infer_types(&mut model).unwrap();
        assert_eq!(type_of(&model, "y"), "float[n, 6]");
    }

    /// Role of the last node added to `b`, whose output is `y`.
    fn role(b: Builder, opset: i64) -> QuantRole {
        let mut model = b.model(opset, &["y"]);
        infer_types(&mut model).unwrap();
        let (id, _) = model.graph.producer(model.graph.find("y").unwrap()).unwrap();
        let cx = node_context(&model, &model.graph, id);
        crate::ops::spec(&model.graph.node(id).op).unwrap().quant(&cx)
    }

    #[test]
    fn linear_layers_have_a_compute_role_where_their_attributes_allow() {
        let gemm = |attributes: &[(&str, AttributeValue)]| {
            let b = Builder::default().input("x", &["4", "4"]).constant("w", f32s(&[4, 4]));
            role(b.node("Gemm", &["x", "w"], &["y"], attributes), 13)
        };
        let compute =
            |weight_axis| QuantRole::Compute(ComputeRole { activation: 0, weight: 1, bias: Some(2), weight_axis });
        assert_eq!(gemm(&[]), compute(1));
        assert_eq!(gemm(&[("transB", 1.into())]), compute(0));
        assert_eq!(gemm(&[("transA", 1.into())]), QuantRole::Opaque);
        assert_eq!(gemm(&[("alpha", 2.0.into())]), QuantRole::Opaque);
        assert_eq!(gemm(&[("beta", 0.5.into())]), QuantRole::Opaque);
        let matmul = |w: &[usize]| {
            let b = Builder::default().input("x", &["2", "3", "4"]).constant("w", f32s(w));
            role(b.node("MatMul", &["x", "w"], &["y"], &[]), 13)
        };
        let plain = ComputeRole { activation: 0, weight: 1, bias: None, weight_axis: 1 };
        assert_eq!(matmul(&[4, 5]), QuantRole::Compute(plain));
        assert_eq!(matmul(&[2, 4, 5]), QuantRole::Opaque);
    }

    #[test]
    fn clip_bounds_come_from_attributes_or_constants() {
        let x = || Builder::default().input("x", &["4"]);
        let old = x().node("Clip", &["x"], &["y"], &[("min", 0.0.into()), ("max", 6.0.into())]);
        assert_eq!(role(old, 10), QuantRole::Activation { low: Some(0.0), high: Some(6.0) });
        let six = Tensor::from_f32(&[], &[6.0]);
        let new = x().constant("six", six).node("Clip", &["x", "", "six"], &["y"], &[]);
        assert_eq!(role(new, 13), QuantRole::Activation { low: None, high: Some(6.0) });
        let dynamic = x().input("low", &[]).node("Clip", &["x", "low"], &["y"], &[]);
        assert_eq!(role(dynamic, 13), QuantRole::Opaque);
    }

    #[test]
    fn a_constant_is_seen_through_constant_and_identity_nodes() {
        let value = AttributeValue::Tensor(Tensor::from_f32(&[], &[6.0]));
        let b = Builder::default().input("x", &["4"]).node("Constant", &[], &["c"], &[("value", value)]);
        let b = b.node("Identity", &["c"], &["six"], &[]).node("Clip", &["x", "", "six"], &["y"], &[]);
        assert_eq!(role(b, 13), QuantRole::Activation { low: None, high: Some(6.0) });
    }

    #[test]
    fn max_pool_with_positions_is_opaque() {
        let pool = |outputs: &[&str]| {
            let b = Builder::default().input("x", &["1", "2", "8", "8"]);
            role(b.node("MaxPool", &["x"], outputs, &[("kernel_shape", vec![2, 2].into())]), 13)
        };
        assert_eq!(pool(&["y"]), QuantRole::PassThrough { input: 0 });
        assert_eq!(pool(&["y", "at"]), QuantRole::Opaque);
    }
}
