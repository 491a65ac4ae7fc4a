//! Every backward rule against central differences in f64, and every forward function against tract.

mod backward_cases;

use backward_cases::{CASES, Case};
use sardonyx::io::Feed;
use sardonyx::io::text::parse_model;
use sardonyx::ir::{DType, Dim, Model, Node, OpId, Tensor, Type};
use sardonyx::math::Array;
use sardonyx::ops;
use sardonyx::ops::spec::{InferContext, Known};
use sardonyx::recover::{Network, NetworkOptions, Parameters, Seed, Tape};
use sardonyx::runtime::{Runner, RunnerOptions};
use std::collections::BTreeSet;

/// Numbers of a fixed sequence in `low..high`, no two of a tensor equal.
fn numbers(n: usize, seed: u64, (low, high): (f64, f64)) -> Vec<f64> {
    let golden = 0.618_033_988_749_894_9;
    (0..n).map(|i| low + (high - low) * ((i as f64 + 1.0 + seed as f64 * 0.37) * golden).fract()).collect()
}

fn model_of(case: &Case) -> Model {
    let Case { opset, inputs, outputs, body, .. } = case;
    let text = format!(
        "<ir_version: 10, opset_import: [\"\" : {opset}]>\ng ({inputs}) => ({outputs})\n{}\n{{\n{body}\n}}\n",
        case.initializers
    );
    parse_model(&text).unwrap_or_else(|e| panic!("{body}: {e}"))
}

/// Made-up values of the float inputs, as f64.
fn feed_of(model: &Model, case: &Case, numbers_of: &dyn Fn(usize, u64) -> Vec<f64>, dtype: DType) -> Feed {
    let graph = &model.graph;
    let mut feed = Feed::new();
    for (k, v) in graph.required_inputs().enumerate() {
        let ty = graph.ty(v).unwrap();
        let dims: Vec<usize> = ty.shape().unwrap().iter().map(|d| d.known().unwrap()).collect();
        let n = dims.iter().product();
        let t = match (ty.elem().unwrap(), dtype) {
            (DType::I64, _) => Tensor::from_i64(&dims, &(0..n as i64).map(|i| i % case.integers).collect::<Vec<_>>()),
            (DType::Bool, _) => {
                Tensor::raw(DType::Bool, &dims, (0..n).map(|i| (i % 3 == 0).into()).collect::<Vec<u8>>())
            }
            (_, DType::F64) => Tensor::from_f64(&dims, &numbers_of(n, k as u64)),
            _ => Tensor::from_f32(&dims, &numbers_of(n, k as u64).iter().map(|&x| x as f32).collect::<Vec<_>>()),
        };
        feed.insert(graph.name(v).to_string(), t);
    }
    feed
}

struct Judged {
    network: Network<f64>,
    parameters: Parameters<f64>,
    observed: Vec<String>,
}

impl Judged {
    fn new(model: &Model) -> Self {
        let graph = &model.graph;
        let is_float = |n: &String| graph.ty(graph.find(n).unwrap()).and_then(Type::elem) == Some(DType::F32);
        let names = graph.required_inputs().map(|v| graph.name(v).to_string());
        let observed: Vec<String> = names.filter(is_float).collect();
        let network = Network::new(model, &NetworkOptions { parameters: None, observe: observed.clone() }).unwrap();
        let parameters = network.parameters().unwrap();
        Self { network, parameters, observed }
    }

    fn run(&self, feed: &Feed) -> Tape<f64> {
        self.network.forward(&self.parameters, feed, false).unwrap()
    }
}

/// The loss is a weighted sum of all elements of all outputs.
fn weights(y: &Array<f64>, k: usize) -> Array<f64> {
    Array::new(y.dims(), numbers(y.len(), 17 + k as u64, (-1.0, 1.0)))
}

fn loss(tape: &Tape<f64>) -> f64 {
    let outputs = tape.outputs().unwrap();
    let of = |(k, y): (usize, &&Array<f64>)| y.data().iter().zip(weights(y, k).data()).map(|(y, w)| y * w).sum::<f64>();
    outputs.iter().enumerate().map(of).sum()
}

fn values(t: &Tensor) -> Vec<f64> {
    t.bytes().unwrap().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Central differences by each element of each float input.
fn check_gradient(case: &Case) {
    let model = model_of(case);
    let judged = Judged::new(&model);
    let feed = feed_of(&model, case, &|n, k| numbers(n, k, case.range), DType::F64);
    let tape = judged.run(&feed);
    let seeds = tape.outputs().unwrap().into_iter().enumerate();
    let seeds = seeds.map(|(output, y)| Seed { output, gradient: weights(y, output) }).collect();
    let grads = tape.backward(seeds).unwrap();
    for (name, grad) in judged.observed.iter().zip(&grads.observed) {
        let x = &feed[name];
        let zero = Array::zeros(&x.dims);
        let grad = grad.as_ref().unwrap_or(&zero);
        assert_eq!(grad.dims(), x.dims, "{}: shape of the gradient of {name}", case.body);
        let numbers = values(x);
        for i in 0..numbers.len() {
            let moved = |by: f64| {
                let mut moved = numbers.clone();
                moved[i] += by;
                let mut feed = feed.clone();
                feed.insert(name.clone(), Tensor::from_f64(&x.dims, &moved));
                loss(&judged.run(&feed))
            };
            let (step, got) = (1e-6, grad.data()[i]);
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            let close = (slope - got).abs() <= 1e-6 * slope.abs().max(1.0);
            assert!(close, "{}: d/d{name}[{i}] is {got}, by differences {slope}", case.body);
        }
    }
}

/// The tape in f32 against tract.
fn check_forward(case: &Case) {
    let model = model_of(case);
    let feed = feed_of(&model, case, &|n, k| numbers(n, k, case.range), DType::F32);
    let network = Network::<f32>::new(&model, &NetworkOptions::default()).unwrap();
    let tape = network.forward(&network.parameters().unwrap(), &feed, false).unwrap();
    let want = match Runner::new(&model, &RunnerOptions::default()).and_then(|r| r.run(&feed)) {
        Ok(want) => want,
        Err(e) if case.refused => return eprintln!("tract refuses {}: {e}", case.body),
        Err(e) => panic!("{}: {e}", case.body),
    };
    for (got, want) in tape.outputs().unwrap().iter().zip(&want) {
        assert_eq!(got.dims(), want.shape(), "{}", case.body);
        for (g, w) in got.data().iter().zip(want.as_f32().unwrap().iter()) {
            assert!((g - w).abs() <= 2e-5 * w.abs().max(1.0), "{}: {g}, tract says {w}", case.body);
        }
    }
}

/// Judges all cases before it complains of any.
fn all_cases(check: fn(&Case)) {
    let failed: Vec<String> = CASES.iter().filter_map(|case| failure(case, check)).collect();
    assert!(failed.is_empty(), "{} of {} cases fail:\n{}", failed.len(), CASES.len(), failed.join("\n"));
}

fn failure(case: &Case, check: fn(&Case)) -> Option<String> {
    let payload = std::panic::catch_unwind(|| check(case)).err()?;
    let text = payload.downcast_ref::<String>().cloned();
    Some(format!(
        "{}: {}",
        case.body,
        text.or(payload.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default()
    ))
}

#[test]
fn every_rule_agrees_with_central_differences() {
    all_cases(check_gradient);
}

#[test]
fn every_forward_function_agrees_with_tract() {
    all_cases(check_forward);
}

/// Operators that have a rule in some plain form.
fn with_rules() -> BTreeSet<String> {
    let plane = Type::tensor(DType::F32, &[2, 2, 2, 2]);
    let shape = Tensor::from_i64(&[4], &[2, 2, 2, 2]);
    let mut found = BTreeSet::new();
    for (schema, spec) in ops::table().filter(|(s, _)| s.key.domain.is_empty()) {
        let mut node = Node::new(OpId::onnx(schema.key.op_type));
        node.set("to", 1.into());
        node.set("mode", "linear".into());
        node.set("equation", "abcd,abcd->abcd".into());
        for opset in [13, 26] {
            let known = |k: usize| Known {
                ty: Some(&plane),
                constant: (k > 0).then_some(&shape),
                data: (k > 0).then(|| vec![Dim::Known(2); 4]),
            };
            let inputs = (0..4).map(|k| Some(known(k))).collect();
            let cx = InferContext { node: &node, opset, inputs, used_outputs: 1 };
            if spec.gradient(&cx).is_some() {
                found.insert(schema.key.op_type.to_string());
            }
        }
    }
    found
}

#[test]
fn every_rule_has_a_case() {
    let mut covered = BTreeSet::new();
    for case in CASES {
        let model = model_of(case);
        covered.extend(model.graph.nodes().map(|n| model.graph.node(n).op.op_type.to_string()));
    }
    let missing: Vec<String> = with_rules().difference(&covered).cloned().collect();
    assert!(with_rules().len() > 60, "only {} operators have rules", with_rules().len());
    assert!(missing.is_empty(), "no case for {missing:?}");
}
