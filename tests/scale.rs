//! Long, wide and deep graphs: every stage takes linear time and bounded stack.
//!
//! `cargo test --release --test scale -- --ignored --nocapture` prints the table for 10,000 and 100,000 nodes.

use prost::Message;
use sardonyx::analysis::shapes::infer_types;
use sardonyx::io::{load, save};
use sardonyx::ir::{Graph, Model};
use sardonyx::passes::{PassContext, manager, simplify};
use sardonyx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
    attribute_proto::AttributeType,
};
use sardonyx::runtime::RuntimeEvaluator;
use std::path::Path;
use std::time::{Duration, Instant};

fn info(name: &str, elem: i32, dims: &[i64]) -> ValueInfoProto {
    use sardonyx::proto::{TensorShapeProto, TypeProto, tensor_shape_proto::Dimension, tensor_shape_proto::dimension};
    let dim = |&d: &i64| Dimension { value: Some(dimension::Value::DimValue(d)), denotation: None };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = sardonyx::proto::type_proto::Tensor { elem_type: Some(elem), shape };
    let value = Some(sardonyx::proto::type_proto::Value::TensorType(tensor));
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto { value, denotation: None }),
        ..Default::default()
    }
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(op.into()),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

fn with_attribute(mut n: NodeProto, a: AttributeProto) -> NodeProto {
    n.attribute.push(a);
    n
}

fn axis(value: i64) -> AttributeProto {
    let (name, ty) = (Some("axis".into()), Some(AttributeType::Int as i32));
    AttributeProto { name, r#type: ty, i: Some(value), ..Default::default() }
}

fn constant(name: &str, value: f32) -> TensorProto {
    let raw_data = Some(value.to_le_bytes().to_vec().into());
    TensorProto { name: Some(name.into()), data_type: Some(1), raw_data, ..Default::default() }
}

fn model(node: Vec<NodeProto>, initializer: Vec<TensorProto>, output: Vec<ValueInfoProto>) -> ModelProto {
    let input = vec![info("x", 1, &[1, 8]), info("c", 9, &[])];
    let name = Some("scale".into());
    let graph = GraphProto { node, initializer, input, output, name, ..Default::default() };
    let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
    ModelProto { ir_version: Some(8), graph: Some(graph), opset_import: vec![opset], ..Default::default() }
}

/// A chain of operators, some of which do nothing.
fn chain(n: usize) -> ModelProto {
    let mut nodes = vec![];
    let mut v = "x".to_string();
    for k in 0..n {
        let out = if k + 1 == n { "y".to_string() } else { format!("v{k}") };
        nodes.push(match k % 5 {
            0 => node("Relu", &[&v], &out),
            1 => node("Add", &[&v, "one"], &out),
            2 => node("Identity", &[&v], &out),
            3 => node("Sigmoid", &[&v], &out),
            _ => node("Mul", &[&v, "half"], &out),
        });
        v = out;
    }
    model(nodes, vec![constant("one", 1.0), constant("half", 0.5)], vec![info("y", 1, &[1, 8])])
}

/// Many nodes side by side, all with the same input, all into one Concat; every third does nothing, and each has a
/// constant of its own that others equal.
fn wide(n: usize) -> ModelProto {
    let mut nodes = vec![];
    let mut names = vec![];
    for k in 0..n {
        let out = format!("v{k}");
        nodes.push(match k % 3 {
            0 => node("Identity", &["x"], &out),
            _ => node("Add", &["x", &format!("w{k}")], &out),
        });
        names.push(out);
    }
    let weights = (0..n).filter(|k| k % 3 != 0).map(|k| constant(&format!("w{k}"), (k % 1000) as f32)).collect();
    let inputs: Vec<&str> = names.iter().map(String::as_str).collect();
    nodes.push(with_attribute(node("Concat", &inputs, "y"), axis(1)));
    model(nodes, weights, vec![info("y", 1, &[1, 8 * n as i64])])
}

/// As many graph outputs as nodes, each output also the next one's input; every third node does nothing.
fn many_outputs(n: usize) -> ModelProto {
    let mut m = chain(n);
    if let Some(g) = &mut m.graph {
        g.output = g.node.iter().map(|n| info(&n.output[0], 1, &[1, 8])).collect();
    }
    m
}

/// Constants that hang on constants.
fn constants(n: usize) -> ModelProto {
    let mut nodes = vec![node("Add", &["x", "sum"], "y")];
    let mut v = "one".to_string();
    for k in 0..n {
        let out = if k + 1 == n { "sum".to_string() } else { format!("v{k}") };
        nodes.push(node(["Neg", "Abs"][k % 2], &[&v], &out));
        v = out;
    }
    model(nodes, vec![constant("one", 1.0)], vec![info("y", 1, &[1, 8])])
}

/// 64 bodies inside each other, with `n` nodes in all.
fn nested(n: usize) -> ModelProto {
    const DEPTH: usize = 64;
    let branch = |name: &str, g: GraphProto| {
        let ty = Some(AttributeType::Graph as i32);
        AttributeProto { name: Some(name.into()), r#type: ty, g: Some(g), ..Default::default() }
    };
    let part = |level: usize, first: &str| {
        let mut v = first.to_string();
        let mut nodes = vec![];
        for k in 0..n / DEPTH {
            let out = format!("l{level}_{k}");
            nodes.push(node(["Relu", "Identity", "Sigmoid"][k % 3], &[&v], &out));
            v = out;
        }
        (nodes, v)
    };
    let mut inner: Option<GraphProto> = None;
    for level in (0..DEPTH).rev() {
        let (mut nodes, mut v) = part(level, "x");
        if let Some(body) = inner.take() {
            let (out, other) = (format!("if{level}"), format!("else{level}"));
            let small = GraphProto {
                node: vec![node("Neg", &["x"], &other)],
                output: vec![ValueInfoProto { name: Some(other), ..Default::default() }],
                name: Some("else".into()),
                ..Default::default()
            };
            let owner = node("If", &["c"], &out);
            let owner = with_attribute(owner, branch("then_branch", body));
            nodes.push(with_attribute(owner, branch("else_branch", small)));
            let sum = format!("sum{level}");
            nodes.push(node("Add", &[&v, &out], &sum));
            v = sum;
        }
        let output = vec![ValueInfoProto { name: Some(v), ..Default::default() }];
        inner = Some(GraphProto { node: nodes, output, name: Some(format!("body{level}")), ..Default::default() });
    }
    let body = inner.unwrap();
    let mut nodes = body.node;
    nodes.push(node("Relu", &[body.output[0].name()], "y"));
    model(nodes, vec![], vec![info("y", 1, &[1, 8])])
}

type Generator = fn(usize) -> ModelProto;
const SHAPES: [(&str, Generator); 5] =
    [("chain", chain), ("wide", wide), ("outputs", many_outputs), ("constants", constants), ("nested", nested)];

struct Timing {
    stages: [Duration; 5],
    nodes: usize,
}

fn count(g: &Graph) -> usize {
    g.nodes().map(|n| 1 + g.node(n).bodies().map(count).sum::<usize>()).sum()
}

fn timed<T>(f: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = f();
    (start.elapsed(), result)
}

fn run(message: &ModelProto, folder: &Path) -> Timing {
    let (path, out) = (folder.join("m.onnx"), folder.join("out.onnx"));
    std::fs::write(&path, message.encode_to_vec()).unwrap();
    let (loading, model) = timed(|| load(&path));
    let mut model: Model = model.unwrap();
    let (inferring, done) = timed(|| infer_types(&mut model));
    done.unwrap();
    let (ordering, order) = timed(|| model.graph.order());
    assert_eq!(order.unwrap().len(), model.graph.node_count());
    let evaluator = RuntimeEvaluator;
    let pass = simplify::simplify(&evaluator, simplify::FOLD_LIMIT);
    let (simplifying, done) = timed(|| manager::run(&mut model, &[&pass], &PassContext::default(), None));
    done.unwrap();
    let (saving, done) = timed(|| save(&model, &out));
    done.unwrap();
    load(&out).unwrap();
    Timing { stages: [loading, inferring, ordering, simplifying, saving], nodes: count(&model.graph) }
}

#[test]
fn five_shapes_of_some_thousand_nodes() {
    let folder = tempfile::tempdir().unwrap();
    for (name, generator) in SHAPES {
        let timing = run(&generator(4096), folder.path());
        let want = match name {
            "constants" => 1,
            "nested" => 4096, // the owners and sums make up for what is gone
            _ => 4097,
        };
        assert!(timing.nodes <= want, "{name}: {} nodes are left", timing.nodes);
    }
}

#[test]
#[ignore = "prints a table of times: run it in release"]
fn table() {
    let folder = tempfile::tempdir().unwrap();
    eprintln!("{:<10} {:>8} {:>8}  load, infer, order, simplify, save (ms)", "shape", "nodes", "left");
    for (name, generator) in SHAPES {
        for n in [10_000, 100_000] {
            let timing = run(&generator(n), folder.path());
            let stages = timing.stages.map(|d| format!("{:>9.1}", d.as_secs_f64() * 1e3));
            eprintln!("{name:<10} {n:>8} {:>8} {}", timing.nodes, stages.join(" "));
        }
    }
}
