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
        let e = infer_types(&mut model).unwrap_err().to_string();
        assert!(e.starts_with("node \"n0\" (Relu): output \"y\":"), "{e}");
        assert!(e.contains("declared float[2, 7], but the node makes float[2, 6]"), "{e}");
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
