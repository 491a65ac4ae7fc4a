//! Passes that make quantization more accurate: exact before anything is rounded, silent where they would not be.

use sardonyx::analysis::shapes;
use sardonyx::calibrate::Sample;
use sardonyx::drift;
use sardonyx::io::text::parse_model;
use sardonyx::io::{self, Dataset};
use sardonyx::ir::{DType, Model};
use sardonyx::math::Unfold;
use sardonyx::passes::manager::{self, PassReport};
use sardonyx::passes::quantize::{
    EqualizeChannels, Format, Migrate, MigrateRanges, Mode, Precision, QuantizeOptions, Rounding, Runtime, Scope,
};
use sardonyx::passes::{Pass, PassContext};
use sardonyx::recipe::{QuantizeStep, Recipe, RunReport, Silent, ValidateStep, run_files};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

fn model(text: &str) -> Model {
    let mut model = parse_model(text).unwrap();
    model.verify().unwrap();
    shapes::infer_types(&mut model).unwrap();
    model
}

fn run(model: &Model, pass: &dyn Pass) -> (Model, PassReport) {
    let mut after = model.clone();
    let report = manager::run(&mut after, &[pass], &PassContext::default(), None).unwrap().remove(0);
    (after, report)
}

/// Largest relative L2 of any output, on random input.
fn moved(before: &Model, after: &Model) -> f64 {
    let data = Dataset::random(&before.graph, 16, 3).unwrap();
    let outputs = drift::compare(before, after, &data, 1, &|| {}).unwrap();
    outputs.iter().map(|o| o.relative_l2).fold(0.0, f64::max)
}

fn count(model: &Model, op: &str) -> usize {
    model.graph.nodes().filter(|&n| model.graph.node(n).op.to_string() == op).count()
}

/// Elements that differ much from channel to channel, written as the text syntax has them.
fn numbers(n: usize, run: usize, scales: [f64; 4]) -> String {
    let x = |k: usize| ((k as f64 * 1.37).sin() + 0.1) * scales[k / run % 4];
    (0..n).map(|k| format!("{:.6}", x(k))).collect::<Vec<_>>().join(", ")
}

/// What one layer makes large the next one makes small, 2,000 times between two channels.
fn chain(activation: &str, output: &str) -> String {
    chain_of([1.0, 40.0, 0.02, 5.0], [1.0, 0.025, 50.0, 0.2], activation, output)
}

fn chain_of(made: [f64; 4], taken: [f64; 4], activation: &str, output: &str) -> String {
    format!(
        r#"
<ir_version: 8, opset_import: ["" : 13]>
g (float[N,2,5,5] x) => (float[N,3,5,5] y{output})
<float[4,2,1,1] a = {{{}}}, float[4] ab = {{0.5, -20, 0.01, 1}}, float[4,1,3,3] d = {{{}}}, float[4] db = {{0.1, 0.2, -0.3, 0.4}},
 float[3,4,1,1] z = {{{}}}, float[4,1,1] slope = {{0.1, -0.5, 0.25, 2}}, float low = {{0}}, float high = {{6}},
 float[5] row = {{1, 2, 3, 4, 5}}, float[4,1,1] column = {{1, -30, 0.02, 4}}>
{{
    c = Conv (x, a, ab)
    {activation}
    e = Conv <group = 4, pads = [1, 1, 1, 1]> (r, d, db)
    f = Relu (e)
    y = Conv (f, z)
}}
"#,
        numbers(8, 2, made),
        numbers(36, 9, taken),
        numbers(12, 1, [1.0; 4]),
    )
}

#[test]
fn equalization_is_exact_and_evens_ranges() {
    for (activation, regions) in [
        ("r = Relu (c)", 2),
        ("r = PRelu (c, slope)", 2),
        ("r = LeakyRelu <alpha = 0.3> (c)", 2),
        ("r = Clip (c, low, high)", 2),
        ("s = Relu (c) t = Add (s, column) r = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (t)", 2),
        ("s = Relu (c) r = Add (s, c)", 2),
    ] {
        let before = model(&chain(activation, ""));
        let (after, report) = run(&before, &EqualizeChannels::default());
        assert_eq!(report.changes, regions, "{activation}: {:?}", report.notes);
        assert!(moved(&before, &after) < 2e-6, "{activation}: {}", moved(&before, &after));
        let weight = after.graph.constant(after.graph.find("a").unwrap()).unwrap().to_f32().unwrap();
        let range = |c: usize| weight[2 * c].abs().max(weight[2 * c + 1].abs());
        let (least, most) = (0..4).map(range).fold((f32::MAX, 0f32), |(l, h), r| (l.min(r), h.max(r)));
        assert!(most / least < 50.0, "{activation}: ranges were 2,000 times apart, now {}", most / least);
        let (_, again) = run(&after, &EqualizeChannels::default());
        assert_eq!(again.changes, 0, "{activation}: what is settled stays");
    }
}

#[test]
fn a_clamp_becomes_one_bound_per_channel() {
    let before = model(&chain("r = Clip (c, low, high)", ""));
    let (after, report) = run(&before, &EqualizeChannels::default());
    assert_eq!((count(&after, "Clip"), count(&after, "Min")), (0, 1));
    assert!(report.notes.iter().any(|n| n.text.contains("Min")), "{:?}", report.notes);
}

#[test]
fn equalization_stays_away_from_what_is_not_homogeneous() {
    // The second region, behind the depthwise convolution, is there in each case.
    for (activation, output) in [
        ("r = Sigmoid (c)", ""),
        ("r = Relu (c)", ", float[N,4,5,5] c"),
        ("r = Relu (c)", ", float[N,4,5,5] r"),
        ("s = Sigmoid (c) t = Relu (c) r = Mul (s, t)", ""),
        ("s = Relu (c) r = Add (s, row)", ""),
        ("r = Softmax <axis = 1> (c)", ""),
        (
            "s = Transpose <perm = [0, 2, 1, 3]> (c) t = Transpose <perm = [0, 2, 1, 3]> (s) u = Softmax <axis = 2> (t) r = Add (u, c)",
            "",
        ),
    ] {
        let before = model(&chain(activation, output));
        let (after, report) = run(&before, &EqualizeChannels::default());
        assert_eq!(report.changes, 1, "{activation} {output}");
        assert!(report.notes.iter().any(|n| n.text.starts_with("not equalized")), "{activation} {output}");
        assert!(moved(&before, &after) < 2e-6, "{activation} {output}");
    }
}

#[test]
fn equalization_leaves_shared_weights_and_empty_channels() {
    let shared = r#"
<ir_version: 8, opset_import: ["" : 13]>
g (float[N,2,5,5] x) => (float[N,2,5,5] y)
<float[2,2,1,1] a = {1, 2, 300, 4}>
{
    c = Conv (x, a)
    r = Relu (c)
    y = Conv (r, a)
}
"#;
    let (_, report) = run(&model(shared), &EqualizeChannels::default());
    assert_eq!(report.changes, 0);
    let empty = r#"
<ir_version: 8, opset_import: ["" : 13]>
g (float[N,2,5,5] x) => (float[N,2,5,5] y)
<float[3,2,1,1] a = {0, 0, 300, 4, 1, 2}, float[3] b = {1, 2, 3}, float[2,3,1,1] z = {1, 2, 0, 4, 5, 0}>
{
    c = Conv (x, a, b)
    r = Relu (c)
    y = Conv (r, z)
}
"#;
    let before = model(empty);
    let (after, report) = run(&before, &EqualizeChannels::default());
    assert_eq!(report.changes, 1);
    assert!(moved(&before, &after) < 1e-6);
    let bias = after.graph.constant(after.graph.find("b").unwrap()).unwrap().to_f32().unwrap();
    assert_eq!((bias[0], bias[2]), (1.0, 3.0), "nothing to even out where one side is all zero");
}

const PROJECTIONS: &str = r#"
<ir_version: 8, opset_import: ["" : 13]>
g (float[N,6,4] x) => (float[N,6,2] y, float[N,6,3] k)
<float[4,2] w = {0.1, -0.2, 0.3, 0.4, -0.5, 0.6, 0.7, -0.8}, float[4,3] v = {1, 2, 3, -4, 5, -6, 0.7, 0.8, 0.9, -0.1, 0.11, 0.12},
 float[4] gain = {1, 60, 0.5, 2}>
{
    n = Mul (x, gain)
    y = MatMul (n, w)
    k = MatMul (n, v)
}
"#;

fn sampled(model: &Model, name: &str) -> HashMap<String, Sample> {
    let observe = sardonyx::runtime::Wanted {
        samples: vec![(name.into(), Unfold::Last)],
        sample_size: 64,
        ..sardonyx::runtime::Wanted::default()
    };
    let data = Dataset::random(&model.graph, 32, 1).unwrap();
    let mut collected = sardonyx::runtime::collect(model, &observe, &data, 1, &|| {}).unwrap();
    HashMap::from([(name.to_string(), collected.samples.remove(0))])
}

fn migration(migrate: Migrate) -> QuantizeOptions {
    QuantizeOptions { format: Format::Qdq, scope: Scope::Inputs, migrate, ..QuantizeOptions::default() }
}

#[test]
fn migration_is_exact_and_shared_by_all_layers_of_an_input() {
    let before = model(PROJECTIONS);
    for migrate in [Migrate::Auto, Migrate::Strength(0.5), Migrate::Strength(1.0)] {
        let pass = MigrateRanges { options: migration(migrate), samples: sampled(&before, "n") };
        let (after, report) = run(&before, &pass);
        // The gain takes the factors.
        assert_eq!((report.changes, count(&after, "Mul")), (1, 1), "{migrate}: {:?}", report.notes);
        assert!(moved(&before, &after) < 1e-6, "{migrate}");
        let bytes = |m: &Model| io::model_to_proto(m).unwrap();
        assert_eq!(bytes(&after), bytes(&run(&before, &pass).0), "{migrate}: twice the same");
    }
}

#[test]
fn migration_folds_into_what_makes_the_input_or_multiplies() {
    let gain = "n = Mul (x, gain)";
    let square =
        "float[4,4] q = {1, 0, 0, 0, 0, 90, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}, float[4] s = {0.1, 9, 1, 2}, float[4] gain";
    let with = |made: &str| PROJECTIONS.replace(gain, made).replace("float[4] gain", square).replace(": 13]", ": 17]");
    for (made, muls) in [
        ("o = Mul (x, gain) n = Add (o, s)", 1),
        ("n = LayerNormalization (x, gain, s)", 0),
        ("o = MatMul (x, q) n = Add (s, o)", 0),
        ("n = MatMul (x, q)", 0),
        // An activation in between, another use, a constant that is no vector of channels: a multiplication.
        ("o = Mul (x, gain) n = Sigmoid (o)", 2),
        ("n = Mul (x, gain) r = Neg (n)", 2),
        ("o = LayerNormalization (x, gain, s) n = Transpose <perm = [0, 1, 2]> (o)", 1),
    ] {
        let text = with(made)
            .replace("[N,6,3] k", if made.contains("r =") { "[N,6,3] k, float[N,6,4] r" } else { "[N,6,3] k" });
        let before = model(&text);
        let pass = MigrateRanges { options: migration(Migrate::Strength(1.0)), samples: sampled(&before, "n") };
        let (after, report) = run(&before, &pass);
        assert_eq!((report.changes, count(&after, "Mul")), (1, muls), "{made}: {:?}", report.notes);
        assert!(moved(&before, &after) < 1e-6, "{made}: {}", moved(&before, &after));
    }
}

#[test]
fn migration_leaves_shared_weights_and_results_in_8_bits() {
    let shared =
        PROJECTIONS.replace("k = MatMul (n, v)", "m = Neg (x) k = MatMul (m, w)").replace("[N,6,3] k", "[N,6,2] k");
    let before = model(&shared);
    let pass = MigrateRanges { options: migration(Migrate::Auto), samples: sampled(&before, "n") };
    let (_, report) = run(&before, &pass);
    assert_eq!(report.changes, 0);
    assert!(report.notes.iter().any(|n| n.text.contains("another use")), "{:?}", report.notes);
    let chained = PROJECTIONS.replace("n = Mul (x, gain)", "o = Mul (x, gain) n = MatMul (o, q)");
    let square = "float[4,4] q = {1, 0, 0, 0, 0, 9, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}, float[4] gain";
    let before = model(&chained.replace("float[4] gain", square));
    let options = QuantizeOptions { scope: Scope::Full, ..migration(Migrate::Auto) };
    let (_, report) = run(&before, &MigrateRanges { options, samples: sampled(&before, "n") });
    assert!(report.notes.iter().any(|n| n.subject == "n" && n.text.contains("8-bit form")), "{:?}", report.notes);
}

#[test]
fn migration_helps_where_channels_differ() {
    let dir = tempfile::tempdir().unwrap();
    let before = model(PROJECTIONS);
    let drift = |migrate| {
        let text = migration(migrate);
        let pass = MigrateRanges { options: text.clone(), samples: sampled(&before, "n") };
        let (after, _) = run(&before, &pass);
        let (input, output) = (dir.path().join("in.onnx"), dir.path().join("out.onnx"));
        io::save(&after, &input).unwrap();
        let step =
            QuantizeStep { options: QuantizeOptions { migrate: Migrate::None, ..text }, ..QuantizeStep::default() };
        let recipe = Recipe { quantize: Some(step), validate: Some(ValidateStep::default()), ..Recipe::default() };
        let report = run_files(&recipe, &input, &output, &Silent).unwrap();
        report.drift.outputs.iter().map(|o| o.relative_l2).fold(0.0, f64::max)
    };
    let (none, auto) = (drift(Migrate::None), drift(Migrate::Auto));
    assert!(auto < 0.7 * none, "{none} without, {auto} with");
}

fn quantized(text: &str, options: QuantizeOptions) -> (Model, f64) {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.onnx"), dir.path().join("out.onnx"));
    io::save(&model(text), &input).unwrap();
    let step = QuantizeStep { options, ..QuantizeStep::default() };
    let recipe = Recipe { quantize: Some(step), validate: Some(ValidateStep::default()), ..Recipe::default() };
    let report = run_files(&recipe, Path::new(&input), &output, &Silent).unwrap();
    let after = io::load(&output).unwrap();
    (after, report.drift.outputs.iter().map(|o| o.relative_l2).fold(0.0, f64::max))
}

#[test]
fn equalization_rescues_a_depthwise_model_per_tensor() {
    let text = chain("r = Relu (c)", "");
    let per_tensor = QuantizeOptions { format: Format::Qdq, per_channel: false, ..QuantizeOptions::default() };
    let (_, without) = quantized(&text, per_tensor.clone());
    let (_, with) = quantized(&text, QuantizeOptions { equalize: true, ..per_tensor });
    assert!(with < 0.05 && with < without, "{without} without, {with} with");
}

/// Type of each zero point, once.
fn code_types(model: &Model) -> BTreeSet<DType> {
    let graph = &model.graph;
    let quantizes = graph.nodes().filter(|&n| graph.node(n).op.is("QuantizeLinear"));
    quantizes.filter_map(|n| Some(graph.constant(graph.input(n, 2)?)?.dtype)).collect()
}

#[test]
fn single_layers_have_4_and_16_bits() {
    let text = chain_of([1.0; 4], [1.0; 4], "r = Relu (c)", "");
    let qdq = QuantizeOptions { format: Format::Qdq, ..QuantizeOptions::default() };
    let given = |precision| QuantizeOptions { nodes: [("Conv".to_string(), precision)].into(), ..qdq.clone() };
    let (_, eight) = quantized(&text, qdq.clone());
    let (after, four) = quantized(&text, given(Precision::Four));
    let weights = after.graph.values().filter(|&v| after.graph.constant(v).is_some_and(|t| t.dtype == DType::I4));
    assert_eq!(weights.count(), 3);
    assert!(four > 2.0 * eight && four < 0.3, "{eight} with 8 bits, {four} with 4");
    let (after, sixteen) = quantized(&text, given(Precision::Sixteen));
    assert_eq!(code_types(&after), [DType::U8, DType::U16].into(), "what no Conv takes has 8 bits");
    assert!(sixteen < 0.9 * eight, "{eight} with 8 bits, {sixteen} with 16");
    for (options, what) in [
        (QuantizeOptions { format: Format::Qlinear, ..given(Precision::Sixteen) }, "--format qdq"),
        (QuantizeOptions { per_channel: false, ..given(Precision::Four) }, "--per-tensor"),
        (QuantizeOptions { mode: Mode::Dynamic, ..given(Precision::Four) }, "--mode static"),
    ] {
        assert!(options.check().unwrap_err().to_string().contains(what), "{what}");
    }
}

fn digits(step: QuantizeStep) -> RunReport {
    let dir = tempfile::tempdir().unwrap();
    let step = QuantizeStep { data: Some("fixtures/digits/digits_calib.npz".into()), samples: Some(48), ..step };
    let validate = ValidateStep { samples: Some(48), ..ValidateStep::default() };
    let recipe = Recipe { quantize: Some(step), validate: Some(validate), ..Recipe::default() };
    let input = Path::new("fixtures/digits/digits_mobile.onnx");
    run_files(&recipe, input, &dir.path().join("out.onnx"), &Silent).unwrap()
}

#[test]
fn of_several_options_those_stay_that_help() {
    let options = QuantizeOptions {
        format: Format::Qdq,
        equalize: true,
        rounding: Rounding::Gptq,
        clip_search: true,
        empirical_bias_correction: true,
        ..QuantizeOptions::default()
    };
    let step = QuantizeStep { options: options.clone(), ..QuantizeStep::default() };
    let report = digits(step.clone());
    let trials = report.trials.unwrap();
    let names: Vec<&str> = trials.options.iter().map(|o| &*o.name).collect();
    assert_eq!(names, ["--equalize", "--rounding", "--clip-search", "--empirical-bias-correction"]);
    let mut least = trials.without;
    for option in &trials.options {
        assert_eq!(option.kept, option.relative_l2 < least, "{option:?} after {least}");
        least = least.min(option.relative_l2);
    }
    assert!(least < 0.9 * trials.without, "{trials:?}");
    assert_eq!(report.drift.outputs[0].relative_l2, least, "the result is the best that was tried");
    // Alone, or where the caller insists, nothing is tried.
    let insisted = digits(QuantizeStep { apply_all: true, ..step });
    assert!(insisted.trials.is_none() && insisted.passes.iter().any(|p| p.pass == "clip_search"));
    let alone = QuantizeOptions { format: Format::Qdq, equalize: true, ..QuantizeOptions::default() };
    let alone = digits(QuantizeStep { options: alone, ..QuantizeStep::default() });
    assert!(alone.trials.is_none() && alone.passes.iter().any(|p| p.pass == "equalize_channels" && p.changes > 0));
}

#[test]
fn equalization_by_noise_beats_scales_per_channel_without_it() {
    let drift = |options: QuantizeOptions| {
        let options = QuantizeOptions { format: Format::Qdq, ..options };
        digits(QuantizeStep { options, ..QuantizeStep::default() }).drift.outputs[0].relative_l2
    };
    let per_channel = drift(QuantizeOptions::default());
    let plain = QuantizeOptions { per_channel: false, symmetric_weights: false, ..QuantizeOptions::default() };
    let without = drift(plain.clone());
    let with = drift(QuantizeOptions { equalize: true, ..plain });
    assert!(with < without && with < 1.05 * per_channel, "{without} per tensor, {with} equalized, {per_channel}");
}

fn dynamic(runtime: Runtime) -> QuantizeOptions {
    QuantizeOptions { mode: Mode::Dynamic, runtime, ..QuantizeOptions::default() }
}

#[test]
fn dynamic_layers_share_the_codes_of_their_input() {
    let (after, drift) = quantized(PROJECTIONS, dynamic(Runtime::Portable));
    assert_eq!(
        (count(&after, "DynamicQuantizeLinear"), count(&after, "MatMulInteger"), count(&after, "MatMul")),
        (1, 2, 0)
    );
    assert!(drift > 0.0 && drift < 0.05, "{drift}");
    let (after, same) = quantized(PROJECTIONS, dynamic(Runtime::Ort));
    assert_eq!((count(&after, "DynamicQuantizeLinear"), count(&after, "com.microsoft.MatMulIntegerToFloat")), (1, 2));
    assert!((same - drift).abs() < 1e-5, "{same} and {drift}");
}

#[test]
fn dynamic_layers_keep_their_bias() {
    let gemm = r#"
<ir_version: 8, opset_import: ["" : 13]>
g (float[N,4] x) => (float[N,3] y, float[N,2] z)
<float[3,4] w = {0.1, -0.2, 0.3, 0.4, -0.5, 0.6, 0.7, -0.8, 0.9, 1, -0.1, 0.2}, float[3] b = {1, -2, 3},
 float[3,2] v = {1, 2, 3, 4, 5, 6}, float[2] c = {10, -20}>
{
    y = Gemm <transB = 1> (x, w, b)
    p = MatMul (y, v)
    z = Add (p, c)
}
"#;
    for runtime in [Runtime::Portable, Runtime::Ort] {
        let (after, drift) = quantized(gemm, dynamic(runtime));
        assert!(drift < 0.03, "{drift}");
        assert_eq!((count(&after, "Gemm"), count(&after, "MatMul")), (0, 0));
        if runtime == Runtime::Ort {
            assert_eq!((count(&after, "com.microsoft.DynamicQuantizeMatMul"), count(&after, "Add")), (2, 0));
        }
    }
    let even = chain_of([1.0; 4], [1.0; 4], "r = Relu (c)", "");
    let (after, drift) = quantized(&even, dynamic(Runtime::Portable));
    assert_eq!((count(&after, "ConvInteger"), count(&after, "Conv")), (3, 0));
    assert!(drift < 0.1, "{drift}");
}

#[test]
fn activations_of_16_bits_cost_next_to_nothing() {
    use sardonyx::passes::quantize::Eight;
    let wide = |activations| QuantizeOptions { format: Format::Qdq, activations, ..QuantizeOptions::default() };
    let (_, narrow) = quantized(PROJECTIONS, wide(Eight::U8));
    for eight in [Eight::U16, Eight::S16] {
        let (after, drift) = quantized(PROJECTIONS, wide(eight));
        assert!(after.default_opset() >= 21 && count(&after, "QuantizeLinear") == 1);
        assert!(drift < narrow / 2.0, "{drift} and {narrow} in 8 bits");
    }
    let qlinear = QuantizeOptions { format: Format::Qlinear, ..wide(Eight::U16) };
    assert!(qlinear.check().unwrap_err().to_string().contains("--format qdq"));
}
