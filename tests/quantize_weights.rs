//! Weights alone in few bits: what is written, what must stay, and that both spellings mean the same.

use sardonyx::analysis::{opset, shapes};
use sardonyx::calibrate::Gram;
use sardonyx::io::Feed;
use sardonyx::io::text::parse_model;
use sardonyx::ir::{DType, Model, Tensor};
use sardonyx::passes::quantize::weight_only::{Reached, WeightPlan, WriteWeights};
use sardonyx::passes::quantize::{QuantizeOptions, Rounding, Runtime};
use sardonyx::passes::{Pass, PassContext, manager};
use sardonyx::runtime::{Runner, RunnerOptions};
use std::collections::{BTreeMap, HashMap};

fn numbers(n: usize, seed: f32) -> String {
    let at = |k: usize| ((k as f32 * 0.7134 + seed).sin() * 43_758.547).fract();
    (0..n).map(|k| format!("{:.4}", at(k))).collect::<Vec<_>>().join(", ")
}

fn matrix(name: &str, rows: usize, columns: usize, seed: f32) -> String {
    format!("float[{rows},{columns}] {name} = {{{}}}", numbers(rows * columns, seed))
}

fn model(io: &str, initializers: &[String], body: &str) -> Model {
    let text =
        format!("<ir_version: 10, opset_import: [\"\" : 21]>\ng {io}\n<{}>\n{{\n{body}\n}}", initializers.join(", "));
    let mut model = parse_model(&text).unwrap();
    model.verify().unwrap();
    shapes::infer_types(&mut model).unwrap();
    model
}

fn options(bits: u8) -> QuantizeOptions {
    QuantizeOptions {
        mode: sardonyx::passes::quantize::Mode::Weights,
        weight_bits: bits,
        symmetric_weights: bits == 8,
        ..QuantizeOptions::default()
    }
}

fn plan(model: &Model, options: &QuantizeOptions) -> WeightPlan {
    WeightPlan::draft(model, options, Reached::All).unwrap()
}

fn quantized(model: &Model, options: &QuantizeOptions) -> Model {
    let mut out = model.clone();
    opset::require(&mut out, 21).unwrap();
    let mut plan = plan(&out, options);
    assert!(!plan.weights.is_empty(), "{:?}", plan.skipped);
    plan.round(&out.graph, &HashMap::new(), false).unwrap();
    let pass = WriteWeights { plan };
    manager::run(&mut out, &[&pass as &dyn Pass], &PassContext::default(), None).unwrap();
    out
}

fn ops(model: &Model) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for n in model.graph.nodes() {
        *counts.entry(model.graph.node(n).op.to_string()).or_insert(0) += 1;
    }
    counts
}

fn run(model: &Model, feed: &Feed) -> Vec<Vec<f32>> {
    let out = Runner::new(model, &RunnerOptions::default()).unwrap().run(feed).unwrap();
    out.iter().map(|o| o.as_f32().unwrap().into_owned()).collect()
}

fn relative(a: &[f32], b: &[f32]) -> f32 {
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut a.iter().copied())
}

fn floats(name: &str, dims: &[usize]) -> (String, Tensor) {
    let n = dims.iter().product::<usize>();
    let data: Vec<f32> = (0..n).map(|k| (k as f32 * 1.37).sin()).collect();
    (name.to_string(), Tensor::from_f32(dims, &data))
}

/// Bounds on the relative error of outputs: a step is 1/127 of the largest of a channel, or 1/15 of a block's range.
const LIMITS: [(u8, f32); 2] = [(8, 0.01), (4, 0.12)];

fn both_runtimes_agree(model: &Model, feed: &Feed, expected: impl Fn(u8, Runtime) -> Vec<(&'static str, usize)>) {
    let before = run(model, feed);
    for (bits, limit) in LIMITS {
        let spelled = [Runtime::Portable, Runtime::Ort].map(|runtime| {
            let out = quantized(model, &QuantizeOptions { runtime, ..options(bits) });
            let counts = ops(&out);
            for (op, n) in expected(bits, runtime) {
                assert_eq!(counts.get(op).copied().unwrap_or(0), n, "{op} at {bits} bits for {runtime:?}: {counts:?}");
            }
            run(&out, feed)
        });
        for (k, y) in before.iter().enumerate() {
            let moved = relative(y, &spelled[0][k]);
            assert!(moved > 0.0 && moved < limit, "output {k} moved by {moved} at {bits} bits");
            assert!(relative(&spelled[0][k], &spelled[1][k]) < 1e-5, "the spellings differ at {bits} bits");
        }
    }
}

#[test]
fn products() {
    let m = model(
        "(float[N,70] x) => (float[N,48] y, float[N,48] z)",
        &[matrix("w", 70, 48, 0.3), matrix("v", 48, 70, 0.9), format!("float[48] b = {{{}}}", numbers(48, 0.1))],
        "y = MatMul (x, w)\nz = Gemm <transB = 1> (x, v, b)",
    );
    both_runtimes_agree(&m, &[floats("x", &[5, 70])].into(), |bits, runtime| match (bits, runtime) {
        (4, Runtime::Ort) => vec![("com.microsoft.MatMulNBits", 2), ("DequantizeLinear", 0)],
        (8, _) => vec![("DequantizeLinear", 1), ("Cast", 1), ("Mul", 1), ("MatMul", 1), ("Gemm", 1)],
        _ => vec![("DequantizeLinear", 2), ("MatMul", 1), ("Gemm", 1)],
    });
}

#[test]
fn convolutions() {
    let m = model(
        "(float[N,40,5,5] x) => (float[N,8,5,5] y, float[N,6,6,6] z)",
        &[
            format!("float[8,40,3,3] w = {{{}}}", numbers(8 * 40 * 9, 0.2)),
            format!("float[40,6,2,2] v = {{{}}}", numbers(40 * 24, 0.8)),
        ],
        "y = Conv <pads = [1, 1, 1, 1]> (x, w)\nz = ConvTranspose (x, v)",
    );
    both_runtimes_agree(&m, &[floats("x", &[2, 40, 5, 5])].into(), |_, _| vec![("DequantizeLinear", 2)]);
}

#[test]
fn tables() {
    let m = model(
        "(int64[N,S] ids) => (float[N,S,72] y, float[N,S,33] z)",
        &[matrix("w", 50, 72, 0.3), matrix("odd", 60, 33, 0.5)],
        "y = Gather (w, ids)\nz = Gather <axis = -2> (odd, ids)",
    );
    let ids = Tensor::from_i64(&[2, 3], &[0, 49, -1, 7, 7, 12]);
    both_runtimes_agree(&m, &[("ids".to_string(), ids)].into(), |bits, runtime| match (bits, runtime) {
        (8, _) => vec![("Gather", 4), ("Cast", 2), ("Mul", 2), ("DequantizeLinear", 0)],
        (_, Runtime::Portable) => vec![("Gather", 6), ("BitShift", 1), ("BitwiseAnd", 1), ("DequantizeLinear", 2)],
        // Rows of an odd number of elements are not packed.
        (_, Runtime::Ort) => vec![("com.microsoft.GatherBlockQuantized", 1), ("Gather", 3), ("BitShift", 0)],
    });
}

#[test]
fn fewer_bits_and_other_blocks() {
    let m = model("(float[N,64] x) => (float[N,48] y)", &[matrix("w", 64, 48, 0.3)], "y = MatMul (x, w)");
    let feed = [floats("x", &[5, 64])].into();
    let before = &run(&m, &feed)[0];
    let error = |o: QuantizeOptions| {
        let errors = [Runtime::Portable, Runtime::Ort]
            .map(|runtime| relative(before, &run(&quantized(&m, &QuantizeOptions { runtime, ..o.clone() }), &feed)[0]));
        assert!((errors[0] - errors[1]).abs() < 1e-4, "{errors:?}");
        errors[0]
    };
    let blocks = |bits: u8, block: usize| error(QuantizeOptions { block_size: Some(block), ..options(bits) });
    let symmetric = |bits: u8| error(QuantizeOptions { symmetric_weights: true, ..options(bits) });
    let falling = [blocks(2, 16), blocks(3, 16), blocks(4, 16), blocks(8, 16)];
    assert!(falling.is_sorted_by(|a, b| *a > 1.5 * *b), "{falling:?}");
    assert!(blocks(4, 16) < blocks(4, 64));
    assert!(symmetric(4) < 0.15 && symmetric(8) < 0.01);
}

#[test]
fn a_shared_weight_stays_shared_and_right_on_either_axis() {
    let m = model(
        "(float[N,64] x, int64[M] ids) => (float[N,64] y, float[N,64] z, float[N,64] u, float[M,64] t)",
        &[matrix("w", 64, 64, 0.3)],
        "y = MatMul (x, w)\nz = Gemm <transB = 1> (x, w)\nu = MatMul (z, w)\nt = Gather (w, ids)",
    );
    let feed: Feed = [floats("x", &[5, 64]), ("ids".to_string(), Tensor::from_i64(&[2], &[3, 60]))].into();
    let out = quantized(&m, &options(8));
    let before = run(&m, &feed);
    for (k, y) in run(&out, &feed).iter().enumerate() {
        assert!(relative(&before[k], y) < 0.02, "output {k}");
    }
    // Per column for both MatMul, per row for the Gemm, and rows of a table.
    let codes = out.graph.values().filter(|&v| out.graph.constant(v).is_some_and(|t| t.dtype == DType::I8)).count();
    assert_eq!((codes, ops(&out)["DequantizeLinear"], ops(&out)["Cast"]), (3, 1, 2));
}

#[test]
fn what_must_stay_in_float_stays() {
    let w = || matrix("w", 64, 64, 0.3);
    let io = "(float[N,64] x) => (float[N,64] y)";
    let reason = |m: &Model| {
        let plan = plan(m, &options(8));
        assert!(plan.weights.is_empty());
        plan.skipped.first().map(|(_, why)| why.clone()).unwrap_or_default()
    };
    let fed = model("(float[N,64] x, float[64,64] w) => (float[N,64] y)", &[], "y = MatMul (x, w)");
    assert_eq!(reason(&fed), "its weight is not a constant");
    let default = model("(float[N,64] x, float[64,64] w) => (float[N,64] y)", &[w()], "y = MatMul (x, w)");
    assert!(reason(&default).contains("graph input"), "{}", reason(&default));
    let given = model("(float[N,64] x) => (float[N,64] y, float[64,64] w)", &[w()], "y = MatMul (x, w)");
    assert_eq!(reason(&given), "its weight is a graph output");
    let other = model(io, &[w()], "a = MatMul (x, w)\nb = Add (a, w)\ny = ReduceMean <keepdims = 0> (b)");
    assert!(reason(&other).contains("also used in float"), "{}", reason(&other));
    let captured = model(
        "(float[64,64] x, bool c) => (float[64,64] y)",
        &[w()],
        "a = MatMul (x, w)\nb = If (c) <then_branch = t () => (float[64,64] p) { p = Neg (w) }, \
         else_branch = e () => (float[64,64] q) { q = Identity (w) }>\ny = Add (a, b)",
    );
    assert!(reason(&captured).contains("also used in float"), "{}", reason(&captured));
    let small = model("(float[N,8] x) => (float[N,8] y)", &[matrix("w", 8, 8, 0.1)], "y = MatMul (x, w)");
    assert!(reason(&small).contains("small"), "{}", reason(&small));
    let excluded = QuantizeOptions { exclude: vec!["MatMul".into()], ..options(8) };
    let m = model(io, &[w()], "y = MatMul (x, w)");
    assert_eq!(plan(&m, &excluded).skipped[0].1, "excluded by --exclude");
    // Columns of a table, numbers that are no floats, a table that is computed: nothing to say about them.
    let columns = model("(int64[M] ids) => (float[64,M] y)", &[w()], "y = Gather <axis = 1> (w, ids)");
    let computed = model("(float[64,64] x, int64[M] ids) => (float[M,64] y)", &[], "y = Gather (x, ids)");
    for m in [columns, computed] {
        assert!(plan(&m, &options(8)).weights.is_empty() && plan(&m, &options(8)).skipped.is_empty());
    }
    let tables = WeightPlan::draft(&m, &options(8), Reached::Tables).unwrap();
    assert!(tables.weights.is_empty());
}

#[test]
fn feedback_keeps_outputs_closer_and_their_mean() {
    let bias = format!("float[48] b = {{{}}}", numbers(48, 0.1));
    let m = model(
        "(float[N,64] x) => (float[N,48] y)",
        &[matrix("w", 64, 48, 0.3), bias],
        "a = MatMul (x, w)\ny = Add (a, b)",
    );
    // Inputs that depend on each other, around a mean of their own.
    let data: Vec<f32> = (0..300 * 64).map(|k| ((k / 64) as f32 * 0.9 + (k % 64) as f32 * 0.21).sin() + 0.5).collect();
    let feed: Feed = [("x".to_string(), Tensor::from_f32(&[300, 64], &data))].into();
    let before = &run(&m, &feed)[0];
    let o = QuantizeOptions { rounding: Rounding::Gptq, ..options(4) };
    let mut plan = plan(&m, &o);
    let wanted = plan.wanted(&m.graph);
    assert_eq!(wanted.len(), 1);
    let mut gram = Gram::new(wanted[0].0.unfold.clone());
    gram.add(&data, &[300, 64]).unwrap();
    gram.finish();
    assert_eq!(plan.round(&m.graph, &[(wanted[0].0.clone(), gram)].into(), true).unwrap(), 1);
    let mut better = m.clone();
    manager::run(&mut better, &[&WriteWeights { plan } as &dyn Pass], &PassContext::default(), None).unwrap();
    let after = &run(&better, &feed)[0];
    let plain = &run(&quantized(&m, &options(4)), &feed)[0];
    assert!(relative(before, after) < 0.3 * relative(before, plain), "{}", relative(before, after));
    let mean = |y: &[f32]| y.iter().zip(before).skip(7).step_by(48).map(|(a, b)| a - b).sum::<f32>() / 300.0;
    assert!(mean(after).abs() < 1e-3, "{}", mean(after));
}
