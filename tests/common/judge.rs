//! How a generated model is judged: simplified, its outputs and its interface are the same.

use crate::graphs::Generated;
use sardonyx::analysis::shapes::infer_types;
use sardonyx::io::text::{parse_model, print_model};
use sardonyx::io::{Feed, decode_model, model_to_proto, probes};
use sardonyx::ir::{Graph, Model, Tensor};
use sardonyx::proto::{NodeProto, ValueInfoProto};
use sardonyx::recipe::{Silent, SimplifyStep, rule_table, simplify};
use sardonyx::runtime::{Runner, RunnerOptions};
use std::collections::BTreeMap;

/// Share of an output's largest element by which rounding may move any element.
const ROUNDING: f32 = 1e-4;

fn parsed(generated: &Generated) -> Model {
    let model = parse_model(&generated.text).unwrap_or_else(|e| panic!("{e}\n{}", generated.text));
    model.verify().unwrap_or_else(|e| panic!("{e}\n{}", generated.text));
    model
}

fn simplified(model: &Model) -> Model {
    let mut model = model.clone();
    simplify(&mut model, &SimplifyStep { check: false, ..SimplifyStep::default() }, None, None, &Silent).unwrap();
    model
}

/// The part of the model that computes `outputs`, rewritten by no rule.
fn part(model: &Model, outputs: &[String]) -> Model {
    let mut model = model.clone();
    let extract_outputs = outputs.iter().map(|n| n.trim_matches('"').to_string()).collect();
    let skip = rule_table().into_iter().map(|(rule, _)| rule.to_string()).collect();
    let step = SimplifyStep { extract_outputs, skip, check: false, ..SimplifyStep::default() };
    simplify(&mut model, &step, None, None, &Silent).unwrap();
    model
}

/// Inputs and outputs as they are declared in the file.
fn interface(graph: &Graph) -> [Vec<ValueInfoProto>; 2] {
    let message = sardonyx::io::graph_to_proto(graph).unwrap();
    [message.input, message.output]
}

/// The nodes of the domain `my` by name of their first output, and how many random ones there are, bodies included.
fn opaque(graph: &Graph, found: &mut BTreeMap<String, Vec<NodeProto>>) {
    let message = sardonyx::io::graph_to_proto(graph).unwrap();
    let wanted = |n: &&NodeProto| n.domain() == "my" || n.op_type().starts_with("Random");
    for node in message.node.iter().filter(wanted) {
        // Names of values may change where values are merged or bodies move; everything else may not.
        let bare = NodeProto { input: vec![], output: vec![], ..node.clone() };
        found.entry(format!("{} {}", node.op_type(), node.input.len())).or_default().push(bare);
    }
    for id in graph.nodes() {
        graph.node(id).bodies().for_each(|b| opaque(b, found));
    }
}

fn execute(model: &Model, feed: &Feed) -> sardonyx::Result<Vec<Tensor>> {
    Runner::new(model, &RunnerOptions::default())?.run(feed)?.iter().map(|o| o.to_tensor()).collect()
}

fn same(a: &Tensor, b: &Tensor) -> bool {
    if a.dtype != b.dtype || a.dims != b.dims {
        return false;
    }
    if !a.dtype.is_float() {
        return a.bytes().unwrap() == b.bytes().unwrap();
    }
    let (a, b) = (a.to_f32().unwrap(), b.to_f32().unwrap());
    let largest = a.iter().filter(|x| x.is_finite()).fold(0.0f32, |m, x| m.max(x.abs()));
    let close = |(x, y): (&f32, &f32)| x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= ROUNDING * largest;
    a.iter().zip(&b).all(close)
}

/// Panics where simplification breaks a promise; whether anything was executed.
pub fn judge(generated: &Generated) -> bool {
    let text = &generated.text;
    let original = parsed(generated);
    let result = simplified(&original);
    let shown = || format!("{text}\nbecame\n{}", print_model(&result).unwrap());
    result.verify().unwrap_or_else(|e| panic!("{e}\n{}", shown()));
    assert_eq!(interface(&original.graph), interface(&result.graph), "{}", shown());
    let bytes = prost::Message::encode_to_vec(&model_to_proto(&result).unwrap());
    assert_eq!(print_model(&decode_model(bytes.into()).unwrap()).unwrap(), print_model(&result).unwrap());
    if !text.contains("If") && !text.contains("Loop") {
        // Without bodies no node can become dead or appear twice.
        let [mut before, mut after] = [BTreeMap::new(), BTreeMap::new()];
        opaque(&part(&original, &names(&original)).graph, &mut before);
        opaque(&result.graph, &mut after);
        assert_eq!(before, after, "{}", shown());
    }
    if generated.executable.is_empty() {
        return false;
    }
    let [before, after] = [&original, &result].map(|m| part(m, &generated.executable));
    let mut typed = before.clone();
    infer_types(&mut typed).unwrap();
    let mut executed = false;
    for probe in probes(&typed.graph, 16).unwrap() {
        let Ok(wanted) = execute(&before, &probe.feed) else { continue };
        let got = execute(&after, &probe.feed).unwrap_or_else(|e| panic!("on {}: {e}\n{}", probe.what, shown()));
        for (k, (a, b)) in wanted.iter().zip(&got).enumerate() {
            assert!(same(a, b), "output {k} on {}: {a:?}\nbecame {b:?}\n{}", probe.what, shown());
        }
        executed = true;
    }
    executed
}

fn names(model: &Model) -> Vec<String> {
    model.graph.outputs().iter().map(|&v| model.graph.name(v).to_string()).collect()
}
