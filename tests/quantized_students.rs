//! Quantized models in training: gradients through roundings, and students that keep their integer form.

use sardonyx::analysis::cost::op_histogram;
use sardonyx::io::text::parse_model;
use sardonyx::io::{self, Dataset, Feed};
use sardonyx::ir::{DType, Model, Tensor};
use sardonyx::math::Array;
use sardonyx::passes::quantize::{Format, QuantizeOptions, Rounding, Runtime, SpellOut};
use sardonyx::passes::{PassContext, manager};
use sardonyx::recipe::{QuantizeStep, Silent, quantize};
use sardonyx::recover::{
    DistillOptions, Distillation, Latent, LossKind, Network, NetworkOptions, Seed, Teacher, distill,
};
use sardonyx::runtime::{Runner, RunnerOptions};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/digits").join(name)
}

fn parsed(body: &str) -> Model {
    parse_model(&format!("<ir_version: 10, opset_import: [\"\" : 21, \"com.microsoft\" : 1]>\n{body}")).unwrap()
}

/// Gradients by `x` and by the scale of a fake quantization of `x` (2 x 4), for these gradients by its result.
fn fake_quantized(scales: &str, attribute: &str, x: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let model = parsed(&format!(
        "g (float[2,4] x) => (float[2,4] y) <{scales}>
         {{
            q = QuantizeLinear {attribute} (x, s, z)
            y = DequantizeLinear {attribute} (q, s, z)
         }}"
    ));
    let wanted = NetworkOptions { parameters: Some(vec!["s".into()]), observe: vec!["x".into()] };
    let network = Network::<f64>::new(&model, &wanted).unwrap();
    let feed: Feed = [("x".to_string(), Tensor::from_f64(&[2, 4], x))].into_iter().collect();
    let tape = network.forward(&network.parameters().unwrap(), &feed, false).unwrap();
    let found = tape.backward(vec![Seed { output: 0, gradient: Array::new(&[2, 4], dy.to_vec()) }]).unwrap();
    let dx = found.observed[0].as_ref().unwrap().data().to_vec();
    (dx, found.parameters.iter().flatten().next().unwrap().data().to_vec())
}

const X: [f64; 8] = [0.26, -0.2, 0.49, -3.0, 5.0, 0.0, 1.74, -1.3];
const DY: [f64; 8] = [1.0, -2.0, 0.5, 3.0, -1.5, 0.25, 2.0, 1.0];

/// By the definition: the slope of rounding is 1 inside the range and 0 outside; the gradient of a step is what is left of
/// rounding inside (in steps), and the outermost code outside (Esser et al. 2020, equation 3).
fn defined(scale: impl Fn(usize) -> f64, low: f64, high: f64) -> (Vec<f64>, Vec<f64>) {
    let inside = |k: usize| (low..=high).contains(&(X[k] / scale(k)).round_ties_even());
    let dx = (0..8).map(|k| if inside(k) { DY[k] } else { 0.0 }).collect();
    let of_scale = |k: usize| {
        let (x, code) = (X[k] / scale(k), (X[k] / scale(k)).round_ties_even().clamp(low, high));
        DY[k] * if inside(k) { code - x } else { code }
    };
    (dx, (0..8).map(of_scale).collect())
}

fn close(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6)
}

#[test]
fn gradients_of_fake_quantization_are_as_defined() {
    // u4 with zero point 8: codes -8 to 7 from zero. 5.0 / 0.5 = 10 saturates.
    let (dx, ds) = fake_quantized("float s = {0.5}, uint4 z = {8}", "", &X, &DY);
    let (want_x, want_s) = defined(|_| 0.5, -8.0, 7.0);
    assert!(close(&dx, &want_x), "{dx:?} {want_x:?}");
    assert!(dx.iter().filter(|d| **d == 0.0).count() == 1);
    assert!(close(&ds, &[want_s.iter().sum::<f64>()]), "{ds:?} {want_s:?}");
    // Two scales along axis 0; codes of i8.
    let (dx, ds) = fake_quantized("float[2] s = {0.02, 0.5}, int8[2] z = {0, 0}", "<axis = 0>", &X, &DY);
    let (want_x, want_s) = defined(|k| if k < 4 { f64::from(0.02f32) } else { 0.5 }, -128.0, 127.0);
    assert!(close(&dx, &want_x) && dx[3] == 0.0, "{dx:?} {want_x:?}");
    let sums = [want_s[..4].iter().sum::<f64>(), want_s[4..].iter().sum()];
    assert!(ds.iter().zip(&sums).all(|(a, b)| (a - b).abs() < 1e-4), "{ds:?} {sums:?}");
}

#[test]
fn gradients_pass_through_operators_on_codes() {
    let model = parsed(
        "g (float[1,1,4] x) => (float[1,1,2] y) <float s = {0.1}, uint8 z = {10}>
         {
            q = QuantizeLinear (x, s, z)
            p = MaxPool <kernel_shape = [2], strides = [2]> (q)
            y = DequantizeLinear (p, s, z)
         }",
    );
    let network = Network::<f32>::new(&model, &NetworkOptions { parameters: None, observe: vec!["x".into()] }).unwrap();
    let x = Tensor::from_f32(&[1, 1, 4], &[0.12, 0.58, 0.9, -0.4]);
    let feed: Feed = [("x".to_string(), x)].into_iter().collect();
    let tape = network.forward(&network.parameters().unwrap(), &feed, false).unwrap();
    assert!(tape.output(0).unwrap().data().iter().zip([0.6, 0.9]).all(|(a, b)| (a - b).abs() < 1e-6));
    let seed = Seed { output: 0, gradient: Array::new(&[1, 1, 2], vec![2.0, 3.0]) };
    let found = tape.backward(vec![seed]).unwrap();
    assert!(
        found.observed[0].as_ref().unwrap().data().iter().zip([0.0, 2.0, 3.0, 0.0]).all(|(a, b)| (a - b).abs() < 1e-5)
    );
}

const QLINEAR: &str = "g (float[2, 2, 3, 3] x) => (float[2, 3, 3, 3] y)
    <float sx = {0.02}, uint8 zx = {3}, int8[3, 2, 1, 1] w = {1, -5, 70, 2, 9, -100}, float[3] sw = {0.1, 0.2, 0.05},
     int8[3] zw = {0, 0, 0}, float sy = {0.3}, uint8 zy = {128}, int32[3] b = {100, -200, 3}>
    {
        q = QuantizeLinear (x, sx, zx)
        c = QLinearConv (q, sx, zx, w, sw, zw, sy, zy, b)
        d = com.microsoft.QLinearAdd (c, sy, zy, c, sy, zy, sy, zy)
        y = DequantizeLinear (d, sy, zy)
    }";

#[test]
fn the_float_spelling_of_integers_computes_the_same() {
    let model = parsed(QLINEAR);
    let mut spelled = model.clone();
    manager::run(&mut spelled, &[&SpellOut], &PassContext::default(), None).unwrap();
    let ops = op_histogram(&spelled.graph);
    assert!(ops.contains_key("Conv") && ops.contains_key("Add"), "{ops:?}");
    assert!(!ops.keys().any(|op| op.contains("QLinear")), "{ops:?}");
    let x: Vec<f32> = (0..36).map(|k| (k as f32 * 0.7).sin() * 2.0).collect();
    let feed: Feed = [("x".to_string(), Tensor::from_f32(&[2, 2, 3, 3], &x))].into_iter().collect();
    let run = |m: &Model| {
        Runner::new(m, &RunnerOptions::default()).unwrap().run(&feed).unwrap()[0].as_f32().unwrap().into_owned()
    };
    let (a, b) = (run(&model), run(&spelled));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 0.601), "{a:?} {b:?}");
    assert!(a.iter().zip(&b).filter(|(a, b)| (*a - *b).abs() > 1e-4).count() <= 2);
}

#[test]
fn integers_with_computed_scales_stay_as_they_are() {
    let text = QLINEAR.replace("3, 3] x)", "3, 3] x, float s)").replace("QLinearConv (q, sx", "QLinearConv (q, s");
    let mut model = parsed(&text);
    manager::run(&mut model, &[&SpellOut], &PassContext::default(), None).unwrap();
    assert!(op_histogram(&model.graph).contains_key("QLinearConv"));
}

fn digits(name: &str) -> Model {
    io::load(&fixture(name)).unwrap()
}

/// The model in integers, and the float model that was rounded.
fn quantized(model: &Model, options: QuantizeOptions) -> (Model, Model) {
    let step = QuantizeStep { data: Some(fixture("digits_calib.npz")), options, ..QuantizeStep::default() };
    let mut model = model.clone();
    let done = quantize(&mut model, &step, &PassContext::default(), None, &Silent).unwrap();
    (model, done.prepared)
}

fn train(teacher: Teacher, student: &mut Model, options: &DistillOptions) -> Distillation {
    let mut data = Dataset::open(&fixture("digits_train.npz"), &student.graph, None).unwrap();
    data.limit(256);
    distill(teacher, student, &data, options, &mut |_| true).unwrap()
}

fn quick() -> DistillOptions {
    let losses = [("logits".to_string(), LossKind::Relative)].into();
    DistillOptions { epochs: Some(8), losses, ..DistillOptions::for_rounding() }
}

/// Integer constants of a model by name.
fn integers(model: &Model) -> Vec<(String, DType, Vec<i64>)> {
    let graph = &model.graph;
    let of = |v| {
        let t: &Tensor = graph.value(v).init.as_ref().filter(|t| t.rank() > 1 && !t.dtype.is_float())?;
        Some((graph.name(v).to_string(), t.dtype, t.to_i64().unwrap()))
    };
    graph.values().filter_map(of).collect()
}

#[test]
fn integer_students_learn_and_keep_their_form() {
    let original = digits("digits_resnet.onnx");
    for (format, runtime) in
        [(Format::Qdq, Runtime::Portable), (Format::Qlinear, Runtime::Portable), (Format::Qlinear, Runtime::Ort)]
    {
        let options = QuantizeOptions { weight_bits: 3, format, runtime, ..QuantizeOptions::default() };
        let (mut student, exact) = quantized(&original, options);
        let before = student.clone();
        let teacher = Teacher { model: &exact, kept: None, exact: Some(&exact) };
        let report = train(teacher, &mut student, &quick());
        assert!(report.after < 0.6 * report.before, "{format:?} {runtime:?}: {} -> {}", report.before, report.after);
        assert!(!report.features.is_empty(), "{format:?}: no features");
        student.verify().unwrap();
        assert_eq!(op_histogram(&student.graph), op_histogram(&before.graph));
        let (old, new) = (integers(&before), integers(&student));
        assert_eq!(old.len(), new.len());
        for ((name, dtype, old), (other, same, new)) in old.iter().zip(&new) {
            assert_eq!((name, dtype), (other, same));
            let within = |codes: &[i64]| codes.iter().all(|q| (-4..=3).contains(q));
            assert!(*dtype != DType::I4 || (within(old) && within(new)), "{name} left its 3 bits");
        }
        assert!(old.iter().zip(&new).any(|(a, b)| a.2 != b.2), "no code moved");
        // What was learnt is what tract computes in integers.
        let data = Dataset::open(&fixture("digits_train.npz"), &student.graph, None).unwrap();
        let error = |m: &Model| sardonyx::drift::compare(&exact, m, &data, 8, &|| {}).unwrap()[0].relative_l2;
        let (was, is) = (error(&before), error(&student));
        assert!(is < 0.8 * was, "{format:?} {runtime:?}: executed {was} -> {is}");
    }
}

#[test]
fn up_or_down_is_within_one_step_of_the_weight() {
    let original = digits("digits_resnet.onnx");
    let options =
        QuantizeOptions { weight_bits: 4, format: Format::Qdq, rounding: Rounding::Gptq, ..QuantizeOptions::default() };
    let (mut student, exact) = quantized(&original, options);
    let teacher = Teacher { model: &exact, kept: None, exact: Some(&exact) };
    let report =
        train(teacher, &mut student, &DistillOptions { latent: Latent::Rectified, epochs: Some(12), ..quick() });
    assert!(report.steps > 0 && report.after <= report.before, "{report:?}");
    student.verify().unwrap();
}

#[test]
fn zeros_of_a_sparse_integer_student_stay_zero() {
    let mut original = digits("digits_resnet.onnx");
    let names: Vec<String> = sardonyx::recover::parameters_of(&original)
        .iter()
        .filter(|p| p.dims.len() > 1)
        .map(|p| p.name.to_string())
        .collect();
    let mut parameters = Network::<f32>::new(&original, &NetworkOptions::default()).unwrap().parameters().unwrap();
    let list: Vec<bool> = parameters.list().iter().map(|p| names.contains(&p.name.to_string())).collect();
    for (w, _) in parameters.values_mut().iter_mut().zip(list).filter(|(_, matrix)| *matrix) {
        w.data_mut().iter_mut().enumerate().filter(|(k, _)| k % 3 != 0).for_each(|(_, w)| *w = 0.0);
    }
    parameters.write(&mut original).unwrap();
    let (mut student, _) = quantized(&original, QuantizeOptions { format: Format::Qdq, ..QuantizeOptions::default() });
    let before = integers(&student);
    let dense = digits("digits_resnet.onnx");
    let report =
        train(Teacher::from(&dense), &mut student, &DistillOptions { feature_weight: 0.0, epochs: Some(2), ..quick() });
    assert!(report.kept_zeros > 1000, "{report:?}");
    let mut moved = 0;
    for ((name, _, old), (_, _, new)) in before.iter().zip(&integers(&student)) {
        assert!(old.iter().zip(new).all(|(a, b)| *a != 0 || *b == 0), "{name}: a zero was filled");
        moved += old.iter().zip(new).filter(|(a, b)| a != b).count();
    }
    assert!(moved > 0);
}

#[test]
fn the_result_does_not_depend_on_threads() {
    let original = digits("digits_mobile.onnx");
    let learn = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let options = QuantizeOptions { weight_bits: 4, format: Format::Qdq, ..QuantizeOptions::default() };
            let (mut student, exact) = quantized(&original, options);
            let teacher = Teacher { model: &exact, kept: None, exact: Some(&exact) };
            train(teacher, &mut student, &DistillOptions { epochs: Some(1), ..quick() });
            integers(&student)
        })
    };
    assert_eq!(learn(1), learn(3));
}
