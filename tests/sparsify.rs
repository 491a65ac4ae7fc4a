//! Zeros: as many as asked for, in the form asked for, the better by second-order information; they survive quantization; and
//! what they make superfluous is removed, exactly, or left where it is not exact.

use prost::Message;
use sardonyx::drift::compare;
use sardonyx::io::text::parse_model;
use sardonyx::io::{Dataset, load, model_to_proto};
use sardonyx::ir::{Graph, Model, ValueId};
use sardonyx::passes::PassContext;
use sardonyx::passes::quantize::{Eight, Format, QuantizeOptions, Rounding};
use sardonyx::passes::sparsify::{Goal, Measure, SparsifyOptions};
use sardonyx::recipe::{QuantizeStep, Recipe, Silent, SparsifyReport, SparsifyStep, run_files, sparsify};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn digits(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/digits").join(file)
}

fn step(goal: &str, importance: Measure) -> SparsifyStep {
    let goal = match goal.parse::<f64>() {
        Ok(share) => Goal::Sparsity(share),
        Err(_) => Goal::Pattern(goal.parse().unwrap()),
    };
    let global = matches!(goal, Goal::Sparsity(_));
    let options = SparsifyOptions { goal: Some(goal), global, importance, store: false, ..SparsifyOptions::default() };
    SparsifyStep { data: Some(digits("digits_calib.npz")), options, ..SparsifyStep::default() }
}

fn sparse(original: &Model, step: &SparsifyStep) -> (Model, SparsifyReport) {
    let mut model = original.clone();
    let (_, report, _) = sparsify(&mut model, step, &PassContext::default(), None, &Silent).unwrap();
    (model, report)
}

/// Relative L2 distance of the logits on data that the fit has not seen.
fn drift(original: &Model, model: &Model) -> f64 {
    let data = Dataset::open(&digits("digits_test.npz"), &original.graph, None).unwrap();
    compare(original, model, &data, 64, &|| {}).unwrap()[0].relative_l2
}

fn zeros(report: &SparsifyReport) -> (usize, usize) {
    let all = report.layers.iter().map(|l| l.elements).sum();
    (all, all - report.layers.iter().map(|l| l.nonzero.1).sum::<usize>())
}

#[test]
fn second_order_zeros_cost_less_than_small_ones() {
    for name in ["digits_resnet.onnx", "digits_mobile.onnx", "digits_vit.onnx"] {
        let original = load(&digits(name)).unwrap();
        for goal in ["0.5", "2:4"] {
            let (plain, by_magnitude) = sparse(&original, &step(goal, Measure::Magnitude));
            let (fitted, report) = sparse(&original, &step(goal, Measure::Hessian));
            assert!(report.fitted > 0 && report.samples > 0, "{name}: {report:?}");
            let ((all, a), (_, b)) = (zeros(&by_magnitude), zeros(&report));
            assert!(a.abs_diff(b) * 200 <= all, "{name} at {goal}: {a} and {b} zeros of {all}");
            let (before, after) = (drift(&original, &plain), drift(&original, &fitted));
            assert!(after < 0.7 * before, "{name} at {goal}: relative L2 {before:.3} by magnitude, {after:.3} fitted");
        }
    }
}

#[test]
fn fitted_zeros_are_the_same_bytes_again_and_keep_their_form() {
    let original = load(&digits("digits_resnet.onnx")).unwrap();
    let bytes = || model_to_proto(&sparse(&original, &step("1:4", Measure::Hessian)).0).unwrap().encode_to_vec();
    assert!(bytes() == bytes());
    let (model, report) = sparse(&original, &step("1:4", Measure::Hessian));
    for layer in &report.layers {
        let t = model.graph.constant(model.graph.find(&layer.name).unwrap()).unwrap();
        let (data, taps) = (t.to_f32().unwrap(), t.dims.iter().skip(2).product::<usize>());
        for row in data.chunks(t.dims[1] * taps) {
            for (run, tap) in (0..t.dims[1].div_ceil(4)).flat_map(|r| (0..taps).map(move |t| (r, t))) {
                let kept = (run * 4..(run * 4 + 4).min(t.dims[1])).filter(|i| row[i * taps + tap] != 0.0).count();
                assert!(kept <= 1, "{}: {kept} of 4 stay", layer.name);
            }
        }
    }
}

#[test]
fn blocks_are_whole_whichever_way_they_are_chosen() {
    let original = load(&digits("digits_resnet.onnx")).unwrap();
    for importance in [Measure::Magnitude, Measure::Hessian] {
        let mut step = step("0.5", importance);
        (step.options.block, step.options.global) = (Some("4x1".parse().unwrap()), false);
        let (model, report) = sparse(&original, &step);
        let (all, none) = zeros(&report);
        assert!((none as f64 / all as f64 - 0.5).abs() < 0.03, "{none} of {all}");
        for layer in report.layers.iter().filter(|l| l.name.contains("weight")) {
            let t = model.graph.constant(model.graph.find(&layer.name).unwrap()).unwrap();
            let (data, columns) = (t.to_f32().unwrap(), t.len() / t.dims[0]);
            for block in data.chunks_exact(4 * columns) {
                for k in 0..columns {
                    let first = block[k] == 0.0;
                    assert!((1..4).all(|r| (block[r * columns + k] == 0.0) == first), "{}", layer.name);
                }
            }
        }
    }
}

/// Where the elements of the model's product weights are zero, by node name; of quantized ones, where they are the zero point.
fn zero_places(model: &Model) -> BTreeMap<String, (Vec<usize>, Vec<bool>)> {
    let graph = &model.graph;
    let point = |v: Option<ValueId>| v.and_then(|v| graph.constant(v)).map_or(0, |t| t.to_i64().unwrap()[0]);
    let mut found = BTreeMap::new();
    for id in graph.nodes() {
        let op = &graph.node(id).op;
        let (weight, zero) = if op.is("QLinearConv") || op.is("QLinearMatMul") { (3, 5) } else { (1, usize::MAX) };
        if !["Conv", "Gemm", "MatMul", "QLinearConv", "QLinearMatMul"].iter().any(|o| op.is(o)) {
            continue;
        }
        let v = graph.input(id, weight).unwrap();
        let places = |v: ValueId, point: i64| {
            let t = graph.constant(v).unwrap();
            let zero = match t.dtype.is_float() {
                true => t.to_f32().unwrap().iter().map(|&x| x == 0.0).collect(),
                false => t.to_i64().unwrap().iter().map(|&x| x == point).collect(),
            };
            (t.dims.clone(), zero)
        };
        let zeros = match through_dequantize(graph, v) {
            Some((codes, zero)) => places(codes, point(zero)),
            None => places(v, point(graph.input(id, zero))),
        };
        found.insert(graph.node(id).name.to_string(), zeros);
    }
    found
}

/// A mask as `dims` have it, of one that may be transposed.
fn turned(dims: &[usize], (found, mask): &(Vec<usize>, Vec<bool>)) -> Vec<bool> {
    if found == dims {
        return mask.clone();
    }
    assert_eq!([dims[1], dims[0]], found[..], "transposed, or another weight");
    (0..mask.len()).map(|k| mask[k % dims[1] * dims[0] + k / dims[1]]).collect()
}

fn through_dequantize(graph: &Graph, v: ValueId) -> Option<(ValueId, Option<ValueId>)> {
    let (node, _) = graph.producer(v)?;
    if !graph.node(node).op.is("DequantizeLinear") {
        return None;
    }
    // Codes of fewer than 8 bits are stored in 4 and cast.
    let codes = graph.input(node, 0).unwrap();
    let cast = graph.producer(codes).filter(|(n, _)| graph.node(*n).op.is("Cast"));
    Some((cast.map_or(codes, |(n, _)| graph.input(n, 0).unwrap()), graph.input(node, 2)))
}

#[test]
fn zeros_survive_quantization() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.onnx");
    let plain = QuantizeOptions { format: Format::Qdq, ..QuantizeOptions::default() };
    let cases = [
        plain.clone(),
        QuantizeOptions { format: Format::Qlinear, ..plain.clone() },
        QuantizeOptions { symmetric_weights: false, weights: Eight::U8, per_channel: false, ..plain.clone() },
        QuantizeOptions { rounding: Rounding::Gptq, ..plain.clone() },
        QuantizeOptions { rounding: Rounding::Gptq, weight_bits: 4, ..plain.clone() },
        QuantizeOptions { equalize: true, rounding: Rounding::Gptq, ..plain.clone() },
    ];
    // Without normalizations in between, so that layers are the same ones before and after.
    let original = digits("digits_resnet_dynamo.onnx");
    let mut model = load(&original).unwrap();
    let kept = SparsifyStep { densify: true, ..step("2:4", Measure::Hessian) };
    sparsify(&mut model, &kept, &PassContext::default(), None, &Silent).unwrap();
    let before = zero_places(&model);
    for options in cases {
        let name = format!("{options:?}");
        let quantize = QuantizeStep { data: kept.data.clone(), samples: Some(64), options, ..QuantizeStep::default() };
        let recipe = Recipe { sparsify: Some(kept.clone()), quantize: Some(quantize), ..Recipe::default() };
        run_files(&recipe, &original, &out, &Silent).unwrap_or_else(|e| panic!("{name}: {e}"));
        let after = zero_places(&load(&out).unwrap());
        assert_eq!(before.len(), after.len(), "{name}");
        for (layer, (dims, zeros)) in &before {
            let after = turned(dims, &after[layer]);
            let lost = zeros.iter().zip(&after).filter(|(b, a)| **b && !**a).count();
            assert_eq!(lost, 0, "{name}: layer {layer}");
        }
    }
}

fn folded(text: &str) -> (Model, Model, Vec<String>) {
    let original = parse_model(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let mut model = original.clone();
    let step = SparsifyStep {
        options: SparsifyOptions { fold: true, ..SparsifyOptions::default() },
        ..SparsifyStep::default()
    };
    let (passes, ..) = sparsify(&mut model, &step, &PassContext::default(), None, &Silent).unwrap();
    let notes = passes.into_iter().flat_map(|p| p.notes).map(|n| n.text).collect();
    let data = Dataset::random(&original.graph, 4, 3).unwrap();
    for output in compare(&original, &model, &data, 2, &|| {}).unwrap() {
        assert!(output.relative_l2 < 1e-6, "moved by {}", output.relative_l2);
    }
    (original, model, notes)
}

fn dims(model: &Model, name: &str) -> Vec<usize> {
    model.graph.constant(model.graph.find(name).unwrap()).unwrap().dims.clone()
}

/// `x -> Conv a (row 1 zero, bias c) -> Relu -> Conv b`, with the second one's attributes and the first one's bias.
fn two_layers(bias: &str, attributes: &str, nodes: &str) -> String {
    format!(
        "<ir_version: 8, opset_import: [\"\" : 17]> g (float[N,2,4,4] x) => (float[N,1,p,q] y)
        <float[3,2,1,1] a = {{1, -2, 0, 0, 0.5, 0.25}}, float[3] ab = {{{bias}}},
         float[1,3,2,2] b = {{1, 2, 3, 4, 5, 6, 7, 8, 0.1, 0.2, 0.3, 0.4}}, float[1] bb = {{0.5}}>
        {{ c = Conv(x, a, ab) {nodes} y = Conv{attributes}(r, b, bb) }}"
    )
}

#[test]
fn a_constant_channel_goes_into_the_bias_behind_it() {
    let (_, model, _) = folded(&two_layers("0.1, 0.7, 0.2", "", "r = Relu(c)"));
    assert_eq!((dims(&model, "a"), dims(&model, "b")), (vec![2, 2, 1, 1], vec![1, 2, 2, 2]));
    // Through an activation and a pool; and without a bias to take it up yet.
    let pool = "s = Sigmoid(c) r = MaxPool<kernel_shape = [2,2]>(s)";
    let (_, model, _) = folded(&two_layers("0.1, 0.7, 0.2", "", pool));
    assert_eq!(dims(&model, "a"), [2, 2, 1, 1]);
    let without = two_layers("0.1, 0.7, 0.2", "", "r = Relu(c)").replace("(r, b, bb)", "(r, b)");
    assert_eq!(dims(&folded(&without).1, "a"), [2, 2, 1, 1]);
}

#[test]
fn a_padded_border_keeps_a_constant_channel() {
    let padded = "<pads = [1,1,1,1]>";
    let (_, model, notes) = folded(&two_layers("0.1, 0.7, 0.2", padded, "r = Relu(c)"));
    assert_eq!(dims(&model, "a"), [3, 2, 1, 1]);
    assert!(notes.iter().any(|n| n.contains("borders")), "{notes:?}");
    // One that is zero behind the activation counts for nothing anywhere.
    let (_, model, _) = folded(&two_layers("0.1, -0.7, 0.2", padded, "r = Relu(c)"));
    assert_eq!(dims(&model, "a"), [2, 2, 1, 1]);
}

#[test]
fn channels_that_others_need_stay() {
    let text = two_layers("0.1, 0.7, 0.2", "", "r = Relu(c)");
    // A graph output shows the channel.
    let shown = text.replace("(float[N,1,p,q] y)", "(float[N,1,p,q] y, float[N,3,4,4] r)");
    assert_eq!(dims(&folded(&shown).1, "a"), [3, 2, 1, 1]);
    // A normalization over channels sees it.
    let normalized = text.replace("r = Relu(c)", "r = Softmax<axis = 1>(c)");
    assert_eq!(dims(&folded(&normalized).1, "a"), [3, 2, 1, 1]);
    // A weight that another layer uses too.
    let shared = text
        .replace("(float[N,1,p,q] y)", "(float[N,1,p,q] y, float[N,1,p,q] z)")
        .replace("y = Conv(r, b, bb)", "y = Conv(r, b, bb) z = Conv(d, b, bb)")
        .replace("r = Relu(c)", "r = Relu(c) d = Abs(c)");
    assert_eq!(dims(&folded(&shared).1, "a"), [3, 2, 1, 1]);
    // The sum with something that varies is not constant.
    let sum = text.replace("r = Relu(c)", "e = ReduceMean<axes = [1], keepdims = 1>(x) r = Add(c, e)");
    assert_eq!(dims(&folded(&sum).1, "a"), [3, 2, 1, 1]);
}

#[test]
fn channels_that_nobody_takes_go_and_one_stays_of_all() {
    let text = two_layers("0.1, 0.7, 0.2", "<pads = [1,1,1,1]>", "r = Relu(c)").replace("0, 0, 0.5", "1, 1, 0.5");
    let unused = text.replace("{1, 2, 3, 4, 5, 6", "{0, 0, 0, 0, 5, 6");
    let (_, model, _) = folded(&unused);
    assert_eq!(
        (dims(&model, "a"), dims(&model, "ab"), dims(&model, "b")),
        (vec![2, 2, 1, 1], vec![2], vec![1, 2, 2, 2])
    );
    let none = text.replace("{1, 2, 3, 4, 5, 6, 7, 8, 0.1, 0.2, 0.3, 0.4}", "{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}");
    assert_eq!(dims(&folded(&none).1, "a"), [1, 2, 1, 1]);
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    let text = two_layers("0.1, 0.7, 0.2", "", "r = Relu(c)").replace("{1, -2,", "{nan, -2,");
    let model = parse_model(&text).unwrap();
    for importance in [Measure::Magnitude, Measure::Hessian] {
        let step = SparsifyStep { data: None, ..step("0.5", importance) };
        let error =
            sparsify(&mut model.clone(), &step, &PassContext::default(), None, &Silent).err().unwrap().to_string();
        assert!(error.contains("\"a\"") && error.contains("NaN"), "{error}");
    }
}
