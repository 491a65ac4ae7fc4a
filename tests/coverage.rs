//! What others skip: recurrent weights, bodies, state, half precision; and the tools that choose and explain precision.

use sardonyx::io::{self, text::parse_model, write_npz};
use sardonyx::ir::{DType, Graph, Model, Tensor};
use sardonyx::passes::quantize::{Format, Precision, QuantizeOptions};
use sardonyx::recipe::{
    ConvertStep, HalfType, QuantizeStep, Recipe, RunReport, Search, Silent, ValidateStep, explain_files, run_files,
    sensitivity_file,
};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Numbers that look random, as the text syntax has them.
fn numbers(count: usize, seed: usize) -> String {
    let value = |k: usize| (((k + seed * 131) * 7919 % 2003) as f32 / 1001.5 - 1.0) * 0.5;
    let list: Vec<String> = (0..count).map(|k| format!("{:.5}", value(k))).collect();
    list.join(", ")
}

fn tensor(dims: &[usize], seed: usize) -> Tensor {
    let data: Vec<f32> =
        (0..dims.iter().product()).map(|k: usize| ((k * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0).collect();
    Tensor::from_f32(dims, &data)
}

struct Case {
    folder: TempDir,
}

impl Case {
    fn new(text: &str) -> Self {
        let model = parse_model(text).unwrap();
        model.verify().unwrap();
        let case = Self { folder: tempfile::tempdir().unwrap() };
        io::save(&model, &case.path("in.onnx")).unwrap();
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn data(&self, arrays: &[(&str, Tensor)]) -> PathBuf {
        let arrays: Vec<(String, Tensor)> = arrays.iter().map(|(n, t)| (n.to_string(), t.clone())).collect();
        write_npz(&self.path("data.npz"), &arrays).unwrap();
        self.path("data.npz")
    }

    fn run(&self, recipe: &Recipe) -> sardonyx::Result<(RunReport, Model)> {
        let report = run_files(recipe, &self.path("in.onnx"), &self.path("out.onnx"), &Silent)?;
        Ok((report, io::load(&self.path("out.onnx"))?))
    }

    fn quantize(&self, step: QuantizeStep) -> sardonyx::Result<(RunReport, Model)> {
        self.run(&Recipe { quantize: Some(step), validate: Some(ValidateStep::default()), ..Recipe::default() })
    }
}

fn strict() -> QuantizeStep {
    QuantizeStep { strict: true, ..QuantizeStep::default() }
}

fn constant_of(graph: &Graph, name: &str) -> Option<DType> {
    graph.find(name).and_then(|v| graph.constant(v)).map(|t| t.dtype)
}

fn count(graph: &Graph, op: &str) -> usize {
    graph.nodes().filter(|&n| graph.node(n).op.is(op)).count()
}

/// An LSTM with `directions`, attributes and further inputs.
fn lstm(directions: usize, attributes: &str, more: &str) -> String {
    let d = directions;
    format!(
        r#"<ir_version: 8, opset_import: ["" : 14]>
g (float[6,2,12] x) => (y)
<float[{d},32,12] w = {{{}}}, float[{d},32,8] r = {{{}}}, float[{d},64] b = {{{}}}, float[{d},24] p = {{{}}}>
{{
    [lstm] y = LSTM <hidden_size = 8, {attributes}> (x, w, r, b{more})
}}"#,
        numbers(d * 32 * 12, 1),
        numbers(d * 32 * 8, 2),
        numbers(d * 64, 3),
        numbers(d * 24, 4),
    )
}

#[test]
fn recurrent_weights_are_stored_by_direction_and_row() {
    for (text, flat) in [
        (lstm(1, "direction = \"forward\"", ""), false),
        (lstm(1, "direction = \"reverse\"", ""), false),
        (lstm(2, "direction = \"bidirectional\"", ""), true),
        (lstm(1, "layout = 1", ""), false),
        (lstm(2, "direction = \"bidirectional\"", ", , , , p"), true),
    ] {
        let (report, model) = Case::new(&text).quantize(strict()).unwrap();
        let graph = &model.graph;
        assert_eq!((constant_of(graph, "w_q"), constant_of(graph, "r_q")), (Some(DType::I8), Some(DType::I8)));
        assert_eq!((count(graph, "DequantizeLinear"), count(graph, "Reshape")), (2, if flat { 2 } else { 0 }));
        assert_eq!(constant_of(graph, "b"), Some(DType::F32), "biases stay");
        let scales = graph.constant(graph.find("w_s").unwrap()).unwrap();
        assert_eq!(scales.len(), if flat { 64 } else { 32 });
        let coverage = report.coverage.unwrap();
        assert_eq!((coverage.nodes.quantized, coverage.macs.quantized), (1, coverage.macs.total));
        assert!(coverage.macs.total > 0 && coverage.weight_bytes.quantized > 2 * coverage.weight_bytes.total / 3);
        let drift = &report.drift.outputs[0];
        assert!(drift.relative_l2 > 0.0 && drift.relative_l2 < 0.02, "{}", drift.relative_l2);
    }
}

#[test]
fn a_recurrent_weight_that_is_fed_is_refused_by_name() {
    let text =
        lstm(1, "direction = \"forward\"", "").replace("(float[6,2,12] x)", "(float[6,2,12] x, float[1,32,12] w)");
    let start = text.find("float[1,32,12] w = {").unwrap();
    let end = start + text[start..].find("}, ").unwrap() + 3;
    let text = text[..start].to_string() + &text[end..];
    let case = Case::new(&text);
    let (report, model) = case.quantize(QuantizeStep::default()).unwrap();
    assert_eq!((constant_of(&model.graph, "w_q"), constant_of(&model.graph, "r_q")), (None, Some(DType::I8)));
    assert!(report.coverage.unwrap().weight_bytes.quantized > 0);
}

#[test]
fn a_weight_that_is_also_used_in_float_stays() {
    let text = lstm(1, "direction = \"forward\"", "")
        .replace("=> (y)", "=> (y, z)")
        .replace("    [lstm]", "    z = Neg (w)\n    [lstm]");
    let case = Case::new(&text);
    let (report, model) = case.quantize(QuantizeStep::default()).unwrap();
    assert_eq!((constant_of(&model.graph, "w"), constant_of(&model.graph, "r_q")), (Some(DType::F32), Some(DType::I8)));
    let notes: Vec<_> = report.passes.iter().flat_map(|p| &p.notes).collect();
    assert!(notes.iter().any(|n| n.subject == "w" && n.text.contains("float")), "{notes:?}");
    let e = case.quantize(strict()).err().unwrap().to_string();
    assert!(e.contains("--strict: node \"lstm\" (LSTM) stays in float"), "{e}");
}

#[test]
fn strict_lets_pass_what_the_user_excludes() {
    let case = Case::new(
        &lstm(1, "direction = \"forward\"", "")
            .replace("    [lstm]", "    [m] q = MatMul (x, k)\n    [lstm]")
            .replace("y)\n<", "y, q)\n<")
            .replace("<float[1,32,12]", &format!("<float[12,4] k = {{{}}}, float[1,32,12]", numbers(48, 9))),
    );
    let options = QuantizeOptions { exclude: vec!["LSTM".into()], ..QuantizeOptions::default() };
    let (report, model) = case.quantize(QuantizeStep { options, ..strict() }).unwrap();
    assert_eq!(constant_of(&model.graph, "w"), Some(DType::F32));
    assert!(report.coverage.unwrap().float.iter().all(|n| !n.skipped));
}

const BODIES: &str = r#"<ir_version: 8, opset_import: ["" : 13]>
g (float[2,16] x, bool c) => (float[2,K] y)
<float[16,16] shared = {SHARED}>
{
    [choose] y = If (c) <
        then_branch = then () => (float[2,16] t) <float[16,16] own = {OWN}> { [a] s = MatMul (x, shared) [b] t = MatMul (s, own) },
        else_branch = else () => (float[2,16] e) { [d] e = MatMul (x, shared) }
    >
}"#;

#[test]
fn layers_in_bodies_are_quantized_captured_weights_too() {
    let text = BODIES.replace("SHARED", &numbers(256, 1)).replace("OWN", &numbers(256, 2));
    let case = Case::new(&text);
    let c = Tensor::raw(DType::Bool, &[], vec![1u8]);
    std::fs::create_dir(case.path("feeds")).unwrap();
    for (k, c) in [c, Tensor::raw(DType::Bool, &[], vec![0u8])].into_iter().enumerate() {
        let arrays = [("x".to_string(), tensor(&[2, 16], k)), ("c".to_string(), c)];
        write_npz(&case.path("feeds").join(format!("{k}.npz")), &arrays).unwrap();
    }
    let step = QuantizeStep { data: Some(case.path("feeds")), ..strict() };
    let (report, model) = case.quantize(step.clone()).unwrap();
    let graph = &model.graph;
    assert_eq!(constant_of(graph, "shared_q"), Some(DType::I8));
    let owner = graph.nodes().find(|&n| graph.node(n).op.is("If")).unwrap();
    let then = graph.node(owner).body("then_branch").unwrap();
    assert_eq!((constant_of(then, "own_q"), count(then, "DequantizeLinear")), (Some(DType::I8), 1));
    let coverage = report.coverage.unwrap();
    assert_eq!((coverage.nodes.quantized, coverage.nodes.total), (3, 3));
    assert!(report.drift.outputs[0].relative_l2 < 0.02);
    // One user that is excluded keeps the shared weight in float for all.
    let options = QuantizeOptions { exclude: vec!["d".into()], ..QuantizeOptions::default() };
    let e = case.quantize(QuantizeStep { options, ..step }).err().unwrap().to_string();
    assert!(e.contains("node \"a\" (MatMul)"), "{e}");
}

const STATE: &str = r#"<ir_version: 8, opset_import: ["" : 13]>
g (float[1,4] x, float[1,4] h) => (float[1,4] y, float[1,4] hn)
<float[4,4] w = {0.9, 0.1, 0, 0, 0, 0.8, 0.1, 0, 0.2, 0, 0.7, 0, 0, 0, 0.3, 0.9}>
{
    [mix] m = MatMul (h, w)
    hn = Add (m, x)
    y = Tanh (hn)
}"#;

#[test]
fn state_is_carried_from_feed_to_feed() {
    let case = Case::new(STATE);
    std::fs::create_dir(case.path("feeds")).unwrap();
    for k in 0..5 {
        let mut arrays = vec![("x".to_string(), tensor(&[1, 4], k))];
        if k == 0 {
            arrays.push(("h".to_string(), Tensor::from_f32(&[1, 4], &[0.0; 4])));
        }
        write_npz(&case.path("feeds").join(format!("{k}.npz")), &arrays).unwrap();
    }
    let e = case.quantize(QuantizeStep { data: Some(case.path("feeds")), ..strict() }).err().unwrap().to_string();
    assert!(e.contains("\"h\""), "without state every file needs it: {e}");
    let state: io::State = [("h".to_string(), "hn".to_string())].into();
    let step = QuantizeStep { data: Some(case.path("feeds")), state: state.clone(), ..strict() };
    let (report, _) = case.quantize(step).unwrap();
    assert_eq!(report.drift.samples, 5);
    // What the state is after five steps, computed here.
    let run = sardonyx::recipe::RunStep {
        data: Some(case.path("feeds")),
        state,
        output: Some(case.path("out.npz")),
        ..sardonyx::recipe::RunStep::default()
    };
    sardonyx::recipe::execute_file(&case.path("in.onnx"), &run).unwrap();
    let arrays = io::read_npz(&case.path("out.npz")).unwrap();
    let hn = &arrays.iter().find(|(n, _)| *n == "hn").unwrap().1;
    assert_eq!(hn.dims, [5, 4]);
    let w = [[0.9f32, 0.1, 0.0, 0.0], [0.0, 0.8, 0.1, 0.0], [0.2, 0.0, 0.7, 0.0], [0.0, 0.0, 0.3, 0.9]];
    let mut h = [0f32; 4];
    for k in 0..5 {
        let x = tensor(&[1, 4], k).to_f32().unwrap();
        h = std::array::from_fn(|j| (0..4).map(|i| h[i] * w[i][j]).sum::<f32>() + x[j]);
    }
    for (a, b) in hn.to_f32().unwrap()[16..].iter().zip(h) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn state_names_are_checked() {
    let case = Case::new(STATE);
    for (input, output, want) in [("h", "nope", "no output \"nope\""), ("nope", "hn", "no input \"nope\"")] {
        let step = QuantizeStep { state: [(input.to_string(), output.to_string())].into(), ..strict() };
        let e = case.quantize(step).err().unwrap().to_string();
        assert!(e.contains(want), "{e}");
    }
}

fn mlp(dtype: &str) -> String {
    format!(
        r#"<ir_version: 8, opset_import: ["" : 13]>
g ({dtype}[N,16] x) => ({dtype}[N,8] y)
<{dtype}[16,32] w = {{{}}}, {dtype}[32] b = {{{}}}, {dtype}[32,8] v = {{{}}}>
{{
    [one] h = Gemm (x, w, b)
    [act] r = Relu (h)
    [two] y = MatMul (r, v)
}}"#,
        numbers(512, 1),
        numbers(32, 2),
        numbers(256, 3)
    )
}

#[test]
fn models_that_arrive_in_f16_are_quantized() {
    let case = Case::new(&mlp("float16"));
    let (report, model) = case.quantize(strict()).unwrap();
    let graph = &model.graph;
    let elem = |name: &str| graph.ty(graph.find(name).unwrap()).unwrap().elem();
    assert_eq!((elem("x"), elem("y")), (Some(DType::F16), Some(DType::F16)));
    assert_eq!(count(graph, "QLinearMatMul"), 2);
    assert!(report.drift.outputs[0].relative_l2 < 0.03, "{}", report.drift.outputs[0].relative_l2);
}

fn convert(step: ConvertStep) -> Recipe {
    Recipe { convert: Some(step), validate: Some(ValidateStep::default()), ..Recipe::default() }
}

#[test]
fn conversion_to_f16_keeps_the_interface_unless_asked() {
    let case = Case::new(&mlp("float"));
    let (report, model) = case.run(&convert(ConvertStep::default())).unwrap();
    assert_eq!((count(&model.graph, "Cast"), report.conversion.unwrap().converted), (2, 3));
    assert!(report.drift.outputs[0].relative_l2 < 2e-3 && report.drift.outputs[0].relative_l2 > 0.0);
    let io = ConvertStep { io: true, ..ConvertStep::default() };
    let recipe = Recipe { convert: Some(io), ..Recipe::default() };
    let (_, model) = case.run(&recipe).unwrap();
    let graph = &model.graph;
    let elem = |name: &str| graph.ty(graph.find(name).unwrap()).unwrap().elem();
    assert_eq!((elem("x"), elem("y"), count(graph, "Cast")), (Some(DType::F16), Some(DType::F16), 0));
}

#[test]
fn bf16_stores_weights_only() {
    let case = Case::new(&mlp("float"));
    let (report, model) = case.run(&convert(ConvertStep { to: HalfType::Bf16, ..ConvertStep::default() })).unwrap();
    assert_eq!(constant_of(&model.graph, "w_bf16"), Some(DType::BF16));
    assert_eq!(constant_of(&model.graph, "b"), Some(DType::F32), "a Cast would take more room than it saves");
    assert!(report.drift.outputs[0].relative_l2 < 1e-2 && report.drift.outputs[0].relative_l2 > 0.0);
}

#[test]
fn what_f16_cannot_hold_or_spell_stays_in_f32() {
    let text = r#"<ir_version: 8, opset_import: ["" : 13]>
g (float[N,4] x) => (float[N,4] y, float[N,4] z)
<float s = {100000}, float t = {0.00002}>
{
    [large] a = Mul (x, s)
    [back] b = Mul (a, t)
    [celu] y = Celu (b)
    [plain] c = Add (x, x)
    [wide] d = Exp (c)
    [log] z = Log (d)
}"#;
    let case = Case::new(text);
    let data = case.data(&[("x", Tensor::from_f32(&[2, 4], &[1.0, 2.0, 3.0, 8.0, 0.5, 0.25, -1.0, -2.0]))]);
    let (report, _) = case.run(&convert(ConvertStep { data: Some(data), ..ConvertStep::default() })).unwrap();
    let conversion = report.conversion.unwrap();
    let reason = |name: &str| conversion.kept.iter().find(|k| k.name == name).map_or("", |k| &*k.reason);
    assert!(reason("large").contains("\"s\" reaches"), "{conversion:?}");
    assert!(reason("back").contains("reaches"), "its input is observed beyond 65504");
    assert!(reason("celu").contains("the standard has no f16"));
    assert_eq!((reason("plain"), reason("wide").contains("\"d\" reaches")), ("", true));
    assert!(report.drift.outputs.iter().all(|o| o.relative_l2 < 2e-2));
}

fn digits(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/digits").join(name)
}

#[test]
fn precisions_of_nodes_are_followed() {
    let case = Case::new(&mlp("float"));
    let nodes =
        [("two".to_string(), Precision::F16), ("*".to_string(), Precision::F32), ("one".to_string(), Precision::Eight)];
    let options = QuantizeOptions { nodes: nodes.into(), ..QuantizeOptions::default() };
    let (_, model) = case.quantize(QuantizeStep { options, ..QuantizeStep::default() }).unwrap();
    assert_eq!((count(&model.graph, "QLinearMatMul"), constant_of(&model.graph, "v_f16")), (1, Some(DType::F16)));
}

#[test]
fn a_search_finds_less_than_all_in_float_and_holds_its_bound() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.onnx");
    let gate = sardonyx::drift::Gate { min_sqnr: Some(42.0), ..Default::default() };
    let data = Some(digits("digits_calib.npz"));
    let quantize = QuantizeStep {
        data: data.clone(),
        samples: Some(32),
        search: Some(Search::default()),
        ..QuantizeStep::default()
    };
    let validate = ValidateStep { data, samples: Some(32), gate, ..ValidateStep::default() };
    let recipe = Recipe { quantize: Some(quantize), validate: Some(validate), ..Recipe::default() };
    let report = run_files(&recipe, &digits("digits_mobile_dynamo.onnx"), &out, &Silent).unwrap();
    let found = report.search.unwrap();
    assert!(report.drift.violations.is_empty() && report.written);
    let in_eight = found.assignment.values().filter(|p| **p == Precision::Eight).count();
    assert!(in_eight > 0 && in_eight < found.assignment.len(), "{found:?}");
    assert!(found.cheapest_bytes < found.bytes && found.bytes < report.drift.bytes.before);
}

#[test]
fn sensitivity_ranks_the_layers() {
    let data = Some(digits("digits_calib.npz"));
    let step = QuantizeStep { data: data.clone(), samples: Some(16), ..QuantizeStep::default() };
    let judge = ValidateStep { data, samples: Some(16), ..ValidateStep::default() };
    let report = sensitivity_file(&digits("digits_resnet_dynamo.onnx"), &step, &judge, false, &Silent).unwrap();
    assert_eq!((report.layers.len(), report.unnamed), (7, 0));
    assert!(report.layers.iter().all(|l| l.alone > 0.0 && l.alone < 2.0 * report.all));
    let most = report.layers.iter().map(|l| l.left_out).fold(f64::INFINITY, f64::min);
    assert!(most < report.all, "leaving the worst layer in float helps");
}

#[test]
fn the_fisher_information_expects_less_of_finer_scales() {
    let data = Some(digits("digits_calib.npz"));
    let judge = ValidateStep { data: data.clone(), samples: Some(16), ..ValidateStep::default() };
    let expected = |per_channel: bool| -> Vec<f64> {
        let options = QuantizeOptions { per_channel, ..QuantizeOptions::default() };
        let step = QuantizeStep { data: data.clone(), samples: Some(16), options, ..QuantizeStep::default() };
        let report = sensitivity_file(&digits("digits_resnet_dynamo.onnx"), &step, &judge, true, &Silent).unwrap();
        assert!(report.render().contains("expected loss"));
        report.layers.iter().map(|l| l.fisher.unwrap()).collect()
    };
    let (fine, coarse) = (expected(true), expected(false));
    assert!(fine.iter().zip(&coarse).all(|(f, c)| *f > 0.0 && f <= c), "{fine:?} {coarse:?}");
    // 8 bits cost this model next to nothing: less than a hundredth of a nat.
    assert!(fine.iter().sum::<f64>() < coarse.iter().sum::<f64>() && coarse.iter().sum::<f64>() < 1e-2);
}

#[test]
fn the_account_of_the_drift_is_complete() {
    for format in [Format::Qlinear, Format::Qdq] {
        let folder = tempfile::tempdir().unwrap();
        let (input, out) = (digits("digits_resnet_dynamo.onnx"), folder.path().join("out.onnx"));
        let options = QuantizeOptions { format, ..QuantizeOptions::default() };
        let step = QuantizeStep { data: Some(digits("digits_calib.npz")), options, ..QuantizeStep::default() };
        run_files(&Recipe { quantize: Some(step), ..Recipe::default() }, &input, &out, &Silent).unwrap();
        let judge =
            ValidateStep { data: Some(digits("digits_test.npz")), samples: Some(24), ..ValidateStep::default() };
        let report = explain_files(&input, &out, &judge, &Silent).unwrap();
        assert!((0.9..1.1).contains(&report.explained), "{format:?}: {}", report.explained);
        assert_eq!(report.roundings.iter().filter(|r| r.kind == "weight").count(), 7);
        let total: f64 = report.roundings.iter().map(|r| r.share).sum();
        assert!((total - 100.0).abs() < 1e-6);
    }
}

#[test]
fn onnx_runtime_gets_its_own_lstm_where_it_has_one() {
    let ort = || QuantizeOptions { runtime: sardonyx::passes::quantize::Runtime::Ort, ..QuantizeOptions::default() };
    for (text, dynamic) in [
        (lstm(1, "direction = \"forward\"", ""), true),
        (lstm(2, "direction = \"bidirectional\"", ", , , , p"), true),
        (lstm(1, "layout = 1", ""), false),
    ] {
        let (report, model) = Case::new(&text).quantize(QuantizeStep { options: ort(), ..strict() }).unwrap();
        let graph = &model.graph;
        let ops: Vec<String> = graph.nodes().map(|n| graph.node(n).op.to_string()).collect();
        assert_eq!(ops.iter().any(|op| op == "com.microsoft.DynamicQuantizeLSTM"), dynamic, "{ops:?}");
        assert_eq!(count(graph, "LSTM"), usize::from(!dynamic));
        assert!(report.drift.outputs[0].relative_l2 > 0.0 && report.drift.outputs[0].relative_l2 < 0.03);
        let coverage = report.coverage.unwrap();
        assert_eq!((coverage.nodes.quantized, coverage.stored_nodes), (1, 1));
        assert!(coverage.weight_bytes.quantized > 2 * coverage.weight_bytes.total / 3, "{:?}", coverage.weight_bytes);
    }
}

#[test]
fn sparse_and_transposed_weights_are_stored() {
    let text = format!(
        r#"<ir_version: 8, opset_import: ["" : 13]>
g (float[1,4,5,5] x) => (float[1,6,K,L] y)
<float[4,6,3,3] w = {{{}}}>
{{
    [up] y = ConvTranspose (x, w)
}}"#,
        numbers(216, 5)
    );
    let (report, model) = Case::new(&text).quantize(strict()).unwrap();
    assert_eq!(constant_of(&model.graph, "w_q"), Some(DType::I8));
    assert_eq!(model.graph.constant(model.graph.find("w_s").unwrap()).unwrap().len(), 6);
    assert!(report.drift.outputs[0].relative_l2 < 0.02);
}
