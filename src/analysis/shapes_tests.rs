//! Tests of type inference.

use super::shapes::*;
use super::testing::{Builder, type_of};
use crate::ir::{AttributeValue, DType, Dim, Tensor, TensorType, Type};
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
    let b = b.constant("zero", Tensor::from_i64(&[], &[0])).constant("axis", i64s(&[0])).constant("rest", i64s(&[-1]));
    let b = b.node("Shape", &["x"], &["s"], &[]).node("Gather", &["s", "zero"], &["n"], &[]);
    let b = b.node("Unsqueeze", &["n", "axis"], &["n1"], &[]);
    let b =
        b.node("Concat", &["n1", "rest"], &["to"], &[("axis", 0.into())]).node("Reshape", &["x", "to"], &["y"], &[]);
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

#[test]
fn a_loop_keeps_state_and_collects() {
    // The names of the body's sizes are its own; what grows from one iteration to the next has no known size.
    let text = "g (int64 n, float[b, 3] x, float[2] e) => (float y, float w, float u, float v) {
        z, g, r, rows = Loop (n, \"\", x, e, x) <body = it (int64 i, bool k, float[b, 3] s, float[k] t, float[b, 3] q) =>
            (bool k2, float s2, float t2, float q2, float row)
            { s2 = Neg (s) t2 = Concat <axis = 0> (t, e) q2 = Flatten (q) row = Transpose (s) k2 = Identity (k) }>
        y = Neg (z) w = Neg (g) u = Neg (r) v = Neg (rows) }";
    let mut model = crate::io::text::parse_graph(text, 17).unwrap();
    infer_types(&mut model).unwrap();
    let type_of = |name: &str| model.graph.ty(model.graph.find(name).unwrap()).unwrap().to_string();
    assert_eq!(type_of("z"), "float[?, 3]");
    assert_eq!(type_of("g"), "float[?]");
    assert_eq!(type_of("r"), "float[?, 3]");
    assert_eq!(type_of("rows"), "float[?, 3, ?]");
}

#[test]
fn a_scan_puts_its_length_where_it_is_told() {
    let text = "g (float[2] x, float[2, 5, 3] rows) => (float y, float w) {
        z, out = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [-1],
            body = it (float[2] s, float[2, 3] r) => (float s2, float o) { s2 = Neg (s) o = Exp (r) }> (x, rows)
        y = Neg (z) w = Neg (out) }";
    let mut model = crate::io::text::parse_graph(text, 17).unwrap();
    infer_types(&mut model).unwrap();
    let type_of = |name: &str| model.graph.ty(model.graph.find(name).unwrap()).unwrap().to_string();
    assert_eq!(type_of("z"), "float[2]");
    assert_eq!(type_of("out"), "float[2, 3, 5]");
}
