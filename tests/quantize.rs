//! Quantization: its structure on small graphs with fixed scales, and its accuracy on the digits models.

use sardonyx::analysis::shapes;
use sardonyx::io::text::parse_model;
use sardonyx::ir::{Graph, Model, NodeId};
use sardonyx::passes::manager;
use sardonyx::passes::quantize::{
    Decision, Eight, Format, Kind, Plan, Quantization, QuantizeOptions, Reach, Runtime, Scope, WritePlan,
};
use sardonyx::passes::{Pass, PassContext};
use sardonyx::recipe::{QuantizeStep, Recipe, Silent, ValidateStep, run_files};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const CONV_RELU: &str = r#"
<ir_version: 8, opset_import: ["" : 13]>
g (float[N,2,4,4] x) => (float[N,2,4,4] y)
<float[2,2,1,1] w = {1, -2, 0.5, 0.25}, float[2] b = {0.2, -0.3}>
{
    c = Conv (x, w, b)
    y = Relu (c)
}
"#;

fn model(text: &str) -> Model {
    let mut model = parse_model(text).unwrap();
    model.verify().unwrap();
    shapes::infer_types(&mut model).unwrap();
    model
}

/// Quantizes with the same scale for every value: 0.1, zero point in the middle unless `zero_point` says otherwise.
fn write(text: &str, options: &QuantizeOptions, zero_point: i32) -> Model {
    let mut model = model(text);
    let mut plan = Plan::draft(&model, options).unwrap();
    let eight = options.activations;
    plan.set_scales(&model.graph, |_, _, _| Ok(Quantization { scale: 0.1, zero_point, eight })).unwrap();
    let pass = WritePlan { plan };
    manager::run(&mut model, &[&pass as &dyn Pass], &PassContext::default(), None).unwrap();
    model
}

fn ops(model: &Model) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for n in model.graph.nodes() {
        *counts.entry(model.graph.node(n).op.to_string()).or_insert(0) += 1;
    }
    counts
}

fn count(model: &Model, op: &str) -> usize {
    ops(model).get(op).copied().unwrap_or(0)
}

fn node_of(graph: &Graph, op: &str) -> NodeId {
    graph.nodes().find(|&n| &*graph.node(n).op.op_type == op).unwrap()
}

fn options() -> QuantizeOptions {
    QuantizeOptions::default()
}

#[test]
fn relu_is_absorbed_where_saturation_computes_it() {
    let out = write(CONV_RELU, &options(), 0);
    let expected = [("DequantizeLinear", 1), ("QLinearConv", 1), ("QuantizeLinear", 1)];
    assert_eq!(ops(&out), expected.map(|(k, v)| (k.to_string(), v)).into());
}

#[test]
fn relu_becomes_clip_where_negative_codes_exist() {
    let out = write(CONV_RELU, &options(), 100);
    assert_eq!(count(&out, "Clip"), 1);
    let qdq = QuantizeOptions { format: Format::Qdq, ..options() };
    assert_eq!(count(&write(CONV_RELU, &qdq, 100), "Relu"), 1);
    assert_eq!(count(&write(CONV_RELU, &qdq, 0), "Relu"), 0);
}

#[test]
fn relu_is_not_absorbed_where_its_input_is_used_elsewhere() {
    let text = CONV_RELU.replace("(float[N,2,4,4] y)", "(float[N,2,4,4] y, float[N,2,4,4] c)");
    let m = model(&text);
    let plan = Plan::draft(&m, &options()).unwrap();
    assert_eq!(plan.structure.decision(node_of(&m.graph, "Relu")), &Decision::Integer(Kind::Clamp));
    let out = write(&text, &options(), 100);
    let names: Vec<&str> = out.graph.outputs().iter().map(|&v| out.graph.name(v)).collect();
    assert_eq!(names, ["y", "c"]);
}

#[test]
fn a_bias_is_stored_in_units_of_input_times_weight_scale() {
    let out = write(CONV_RELU, &options(), 0);
    let conv = node_of(&out.graph, "QLinearConv");
    let bias = out.graph.constant(out.graph.input(conv, 8).unwrap()).unwrap().to_i64().unwrap();
    // Weight scales are 2 / 127 and 0.5 / 127, the input's 0.1.
    let expected = [0.2 / (0.1 * 2.0 / 127.0), -0.3 / (0.1 * 0.5 / 127.0)].map(|x: f64| x.round_ties_even() as i64);
    assert_eq!(bias, expected);
}

#[test]
fn concat_in_standard_operators_joins_scales() {
    let text = r#"
<ir_version: 8, opset_import: ["" : 13]>
g (float[N,2,4,4] x) => (float[N,2,4,4] y)
<float[2,2,1,1] w = {1, -2, 0.5, 0.25}, float[2,4,1,1] v = {1, 2, 3, 4, 5, 6, 7, 8}>
{
    a = Conv (x, w)
    b = MaxPool <kernel_shape = [1, 1]> (x)
    c = Concat <axis = 1> (a, b)
    y = Conv (c, v)
}
"#;
    let m = model(text);
    let group = |options: &QuantizeOptions, name: &str| {
        let plan = Plan::draft(&m, options).unwrap();
        plan.groups.group(m.graph.find(name).unwrap()).unwrap()
    };
    let portable = options();
    assert_eq!(group(&portable, "a"), group(&portable, "c"));
    assert_eq!(group(&portable, "x"), group(&portable, "c"), "MaxPool passes the scale of x on");
    let ort = QuantizeOptions { runtime: Runtime::Ort, ..options() };
    assert_ne!(group(&ort, "a"), group(&ort, "c"));
    assert_eq!(count(&write(text, &ort, 128), "com.microsoft.QLinearConcat"), 1);
    assert_eq!(count(&write(text, &portable, 128), "Concat"), 1);
}

#[test]
fn an_operator_whose_result_nobody_takes_in_8_bits_stays_in_float() {
    let text = r#"
<ir_version: 8, opset_import: ["" : 13]>
g (float[N,2,4,4] x) => (float[N,2,4,4] y)
<float[2,2,1,1] w = {1, -2, 0.5, 0.25}>
{
    a = Conv (x, w)
    y = Add (a, x)
}
"#;
    let m = model(text);
    let ort = QuantizeOptions { runtime: Runtime::Ort, ..options() };
    let plan = Plan::draft(&m, &ort).unwrap();
    assert!(matches!(plan.structure.decision(node_of(&m.graph, "Add")), Decision::Float(_)));
    let out = write(text, &ort, 128);
    assert_eq!((count(&out, "Add"), count(&out, "com.microsoft.QLinearAdd")), (1, 0));
}

#[test]
fn scope_inputs_rounds_no_result() {
    let inputs = QuantizeOptions { format: Format::Qdq, scope: Scope::Inputs, ..options() };
    let out = write(CONV_RELU, &inputs, 0);
    assert_eq!((count(&out, "QuantizeLinear"), count(&out, "Conv"), count(&out, "Relu")), (1, 1, 1));
}

#[test]
fn a_weight_that_others_use_keeps_its_float_form() {
    let text = r#"
<ir_version: 8, opset_import: ["" : 13]>
g (float[N,2] x) => (float[N,2] y, float[2,2] z)
<float[2,2] w = {1, -2, 0.5, 0.25}>
{
    y = MatMul (x, w)
    z = Neg (w)
}
"#;
    let out = write(text, &options(), 128);
    let w = out.graph.constant(out.graph.find("w").unwrap()).unwrap();
    assert_eq!(w.to_f32().unwrap(), [1.0, -2.0, 0.5, 0.25]);
    assert_eq!(count(&out, "QLinearMatMul"), 1);
}

#[test]
fn a_bias_that_is_not_per_channel_keeps_the_layer_in_float() {
    for bias in ["float b = {1}", "float[2,1] b = {1, 2}", "float[2,2] b = {1, 2, 3, 4}"] {
        let text = format!(
            r#"
<ir_version: 8, opset_import: ["" : 13]>
g (float[2,2] x) => (float[2,2] y)
<float[2,2] w = {{1, -2, 0.5, 0.25}}, {bias}>
{{
    y = Gemm (x, w, b)
}}
"#
        );
        let m = model(&text);
        let plan = Plan::draft(&m, &options()).unwrap();
        let decision = plan.structure.decision(node_of(&m.graph, "Gemm"));
        assert!(matches!(decision, Decision::Float(why) if why.contains("bias")), "{bias}: {decision:?}");
    }
}

#[test]
fn values_behind_the_last_integer_operator_are_told_apart() {
    let m = model(CONV_RELU);
    let mut plan = Plan::draft(&m, &options()).unwrap();
    let seen = std::cell::RefCell::new(vec![]);
    let record = |names: &[&str], reach: Reach, _| {
        seen.borrow_mut().push((names[0].to_string(), reach));
        Ok(Quantization { scale: 1.0, zero_point: 0, eight: Eight::U8 })
    };
    plan.set_scales(&m.graph, record).unwrap();
    assert_eq!(seen.into_inner(), [("x".to_string(), Reach::Inner), ("y".to_string(), Reach::Last)]);
}

#[test]
fn nan_in_a_weight_is_named() {
    let m = model(&CONV_RELU.replace("{1, -2,", "{nan, -2,"));
    let error = Plan::draft(&m, &options()).err().unwrap().to_string();
    assert!(error.contains("\"w\" holds NaN at position 0"), "{error}");
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/digits").join(name)
}

/// Accuracy drop in points and SQNR in dB of a digits model, calibrated and tested on the fixtures.
fn digits(name: &str, options: QuantizeOptions) -> (f64, f64) {
    let folder = tempfile::tempdir().unwrap();
    let data = Some(fixture("digits_calib.npz"));
    let recipe = Recipe {
        quantize: Some(QuantizeStep { data, options, ..QuantizeStep::default() }),
        validate: Some(ValidateStep {
            data: Some(fixture("digits_test.npz")),
            label: Some("label".into()),
            ..ValidateStep::default()
        }),
        ..Recipe::default()
    };
    let report = run_files(&recipe, &fixture(name), &folder.path().join("out.onnx"), &Silent).unwrap();
    let output = &report.drift.outputs[0];
    (output.accuracy.as_ref().unwrap().drop_points, output.sqnr_db)
}

#[test]
fn every_digits_model_keeps_its_accuracy_in_every_spelling() {
    for model in ["resnet", "mobile", "vit", "gru"] {
        for exporter in ["", "_dynamo"] {
            for (format, runtime) in [
                (Format::Qlinear, Runtime::Portable),
                (Format::Qlinear, Runtime::Ort),
                (Format::Qdq, Runtime::Portable),
            ] {
                let options = QuantizeOptions { format, runtime, ..options() };
                let (drop, sqnr) = digits(&format!("digits_{model}{exporter}.onnx"), options);
                assert!(drop <= 0.4, "{model}{exporter} {format:?} {runtime:?}: {drop} points");
                assert!(sqnr >= 31.9, "{model}{exporter} {format:?} {runtime:?}: {sqnr} dB");
            }
        }
    }
}

#[test]
fn other_types_and_symmetries_work_too() {
    let base = options();
    let variants = [
        QuantizeOptions { activations: Eight::S8, ..base.clone() },
        QuantizeOptions { activations: Eight::S8, symmetric_activations: true, ..base.clone() },
        QuantizeOptions { symmetric_activations: true, ..base.clone() },
        QuantizeOptions { weights: Eight::U8, ..base.clone() },
        QuantizeOptions { per_channel: false, ..base.clone() },
        QuantizeOptions { per_channel: false, symmetric_weights: false, ..base.clone() },
        QuantizeOptions { per_channel: false, symmetric_weights: false, weights: Eight::U8, ..base.clone() },
    ];
    for options in variants {
        for format in [Format::Qlinear, Format::Qdq] {
            let options = QuantizeOptions { format, ..options.clone() };
            let (drop, sqnr) = digits("digits_resnet.onnx", options.clone());
            assert!(drop <= 0.4 && sqnr >= 30.0, "{options:?}: {drop} points, {sqnr} dB");
        }
    }
}

#[test]
fn a_layer_that_feeds_a_layer_sees_what_replaced_its_input() {
    let text = r#"
<ir_version: 8, opset_import: ["" : 13]>
g (float[N,2] x) => (float[N,2] y)
<float[2,2] w = {1, -2, 0.5, 0.25}, float[2,2] v = {1, 2, 3, 4}, float[2] b = {1, 2}>
{
    h = Gemm (x, w, b)
    y = Gemm (h, v, b)
}
"#;
    let inputs = QuantizeOptions { format: Format::Qdq, scope: Scope::Inputs, ..options() };
    let out = write(text, &inputs, 128);
    let gemms: Vec<NodeId> = out.graph.nodes().filter(|&n| out.graph.node(n).op.is("Gemm")).collect();
    assert_eq!(gemms.len(), 2, "the float producer of h is gone");
    // Splitting biases off chained Gemms must see the first split too.
    let mut model = model(text);
    let split = sardonyx::passes::quantize::SplitGemmBias { options: options() };
    manager::run(&mut model, &[&split as &dyn Pass], &PassContext::default(), None).unwrap();
    assert_eq!((count(&model, "Gemm"), count(&model, "Add")), (2, 2));
    assert!(model.graph.nodes().all(|n| model.graph.node_inputs(n).len() == 2));
}

#[test]
fn a_corrected_bias_is_added_where_there_was_none() {
    let text = r#"
<ir_version: 8, opset_import: ["" : 13]>
g (float[N,2,4,4] x) => (float[N,2,4,4] y)
<float[2,2,1,1] w = {1, -2, 0.5, 0.2471}>
{
    y = Conv (x, w)
}
"#;
    for format in [Format::Qlinear, Format::Qdq] {
        let options = QuantizeOptions { format, ..options() };
        let mut model = model(text);
        let mut plan = Plan::draft(&model, &options).unwrap();
        let quantization = Quantization { scale: 0.1, zero_point: 0, eight: Eight::U8 };
        plan.set_scales(&model.graph, |_, _, _| Ok(quantization)).unwrap();
        plan.set_input_mean(&model.graph, "x", vec![3.0, 50.0]);
        manager::run(&mut model, &[&WritePlan { plan } as &dyn Pass], &PassContext::default(), None).unwrap();
        let (op, slot) = if format == Format::Qdq { ("Conv", 2) } else { ("QLinearConv", 8) };
        assert!(model.graph.input(node_of(&model.graph, op), slot).is_some(), "{format:?}");
    }
}
