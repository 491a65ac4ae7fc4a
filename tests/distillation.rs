//! Distillation on the digits: what it learns, what it keeps, and what it refuses.

use sardonyx::Error;
use sardonyx::io::text::parse_model;
use sardonyx::io::{self, Dataset, read_npz, write_npz};
use sardonyx::ir::{Model, Tensor};
use sardonyx::recover::{
    DistillOptions, Distillation, LossKind, Network, NetworkOptions, Role, distill, parameters_of,
};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/digits").join(name)
}

fn teacher() -> Model {
    io::load(&fixture("digits_resnet.onnx")).unwrap()
}

fn student() -> Model {
    io::load(&fixture("digits_student.onnx")).unwrap()
}

fn data(model: &Model, samples: usize) -> Dataset {
    let mut data = Dataset::open(&fixture("digits_train.npz"), &model.graph, None).unwrap();
    data.limit(samples);
    data
}

fn quick() -> DistillOptions {
    DistillOptions { epochs: Some(4), batch: Some(32), learning_rates: vec![5e-3], ..DistillOptions::default() }
}

fn run(student: &mut Model, samples: usize, options: &DistillOptions) -> Result<Distillation, Error> {
    let data = data(student, samples);
    distill(&teacher(), student, &data, options, &mut |_| true)
}

fn weights(model: &Model) -> Vec<(String, Vec<f32>)> {
    let read = |p: sardonyx::recover::Parameter| {
        let v = model.graph.find(&p.name).unwrap();
        (p.name.to_string(), model.graph.value(v).init.as_ref().unwrap().to_f32().unwrap())
    };
    parameters_of(model).into_iter().map(read).collect()
}

/// With a NaN in the first weight that can be trained.
fn with_nan(mut model: Model) -> Model {
    let network = Network::<f32>::new(&model, &NetworkOptions::default()).unwrap();
    let mut parameters = network.parameters().unwrap();
    let first = parameters.list().iter().position(|p| p.role == Role::Trained).unwrap();
    parameters.values_mut()[first].data_mut()[0] = f32::NAN;
    parameters.write(&mut model).unwrap();
    model
}

fn error(result: Result<Distillation, Error>) -> String {
    result.map(|_| ()).expect_err("an error").to_string()
}

#[test]
fn a_student_of_another_architecture_learns_without_labels() {
    let mut model = student();
    let report = run(&mut model, 512, &quick()).unwrap();
    assert!(report.after < 0.5 * report.before, "{report:?}");
    assert!(report.frozen.is_empty() && report.trained.0 == 8 && report.kept_zeros == 0, "{report:?}");
    assert_eq!((report.training_samples, report.held_out_samples), (461, 51));
    assert_eq!(report.losses["logits"], LossKind::Kl);
    assert!(report.curve.len() > 5 && report.best_step > 0 && report.stopped.is_none());
    model.verify().unwrap();
    // Statistics were re-estimated.
    let mean = weights(&model).into_iter().find(|(n, _)| n == "first.norm.mean").unwrap().1;
    assert!(mean.iter().any(|&m| m != 0.0));
}

#[test]
fn the_result_does_not_depend_on_threads() {
    let train = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut model = student();
            let options = DistillOptions { epochs: Some(1), flip: true, shift: 1, ..quick() };
            run(&mut model, 200, &options).unwrap();
            weights(&model)
        })
    };
    assert_eq!(train(1), train(3));
}

#[test]
fn trials_choose_the_learning_rate() {
    let train = |threads: usize, rates: &[f64]| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut model = student();
            let options = DistillOptions { epochs: Some(33), learning_rates: rates.to_vec(), ..quick() };
            let report = run(&mut model, 144, &options).unwrap();
            (report, weights(&model))
        })
    };
    // 130 samples, five steps each: 165 steps, of which a trial takes six.
    let (up, first) = train(1, &[1e-7, 1e-6, 3e-3, 1e6]);
    let tried: Vec<f64> = up.tried_rates.iter().map(|t| t.rate).collect();
    assert!(up.learning_rate == 3e-3 && tried == [1e-6, 3e-3, 1e6] && up.steps == 165, "{up:?}");
    assert_eq!(first, train(3, &[1e-7, 1e-6, 3e-3, 1e6]).1);
    let (down, _) = train(2, &[3e-3, 1e3, 1e6]);
    assert_eq!(down.learning_rate, 3e-3, "{down:?}");
    // Too short a run for trials.
    let mut model = student();
    let report = run(&mut model, 64, &DistillOptions { learning_rates: vec![1e-3, 3e-3], ..quick() }).unwrap();
    assert!(report.tried_rates.is_empty() && report.learning_rate == 1e-3);
}

#[test]
fn zeros_stay_zero() {
    let model = student();
    let v = model.graph.find("second.weight").unwrap();
    let t = model.graph.value(v).init.clone().unwrap();
    let sparse: Vec<f32> =
        t.to_f32().unwrap().iter().enumerate().map(|(i, &w)| if i % 3 == 0 { w } else { 0.0 }).collect();
    let text = io::model_to_proto(&model).unwrap();
    let mut proto = text;
    for init in &mut proto.graph.as_mut().unwrap().initializer {
        if init.name() == "second.weight" {
            init.raw_data = Some(sparse.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into());
        }
    }
    let mut model = io::model_from_proto(proto).unwrap();
    let report = run(&mut model, 200, &DistillOptions { epochs: Some(1), ..quick() }).unwrap();
    let zeros = sparse.iter().filter(|x| **x == 0.0).count();
    assert_eq!(report.kept_zeros, zeros);
    let after = weights(&model).into_iter().find(|(n, _)| n == "second.weight").unwrap().1;
    assert!(after.iter().zip(&sparse).all(|(a, s)| (*a == 0.0) == (*s == 0.0)) && after != sparse);
}

#[test]
fn an_interrupted_run_keeps_the_best_so_far() {
    let mut model = student();
    let data = data(&model, 256);
    let mut calls = 0;
    let mut watch = |_: &sardonyx::recover::Status| {
        calls += 1;
        calls < 12
    };
    let report = distill(&teacher(), &mut model, &data, &quick(), &mut watch).unwrap();
    assert_eq!((report.steps, report.stopped.as_deref()), (12, Some("interrupted")));
    assert!(report.after < report.before && report.best_step > 0);
}

#[test]
fn labels_join_in() {
    let mut model = student();
    let mut data = Dataset::open(&fixture("digits_train.npz"), &model.graph, Some("label")).unwrap();
    data.limit(200);
    let options = DistillOptions { label_weight: 0.5, epochs: Some(2), ..quick() };
    let report = distill(&teacher(), &mut model, &data, &options, &mut |_| true).unwrap();
    assert!(report.after < report.before);
}

#[test]
fn a_fixed_batch_of_one_is_trained_sample_by_sample() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        g (float[1,1,8,8] image) => (float[1,10] logits)
        <float[64,10] w = {WEIGHTS}, float[10] b = {0,0,0,0,0,0,0,0,0,0}>
        { f = Flatten (image)  logits = Gemm (f, w, b) }"#;
    let numbers: Vec<String> = (0..640).map(|i| format!("{}", ((i * 37 % 101) as f32 - 50.0) / 500.0)).collect();
    let mut model = parse_model(&text.replace("WEIGHTS", &numbers.join(","))).unwrap();
    let path = folder.path().join("few.npz");
    let arrays = read_npz(&fixture("digits_train.npz")).unwrap();
    let image = arrays.into_iter().find(|(n, _)| n == "image").unwrap().1;
    let few: Vec<f32> = image.to_f32().unwrap()[..96 * 64].to_vec();
    write_npz(&path, &[("image".into(), Tensor::from_f32(&[96, 1, 8, 8], &few))]).unwrap();
    let data = Dataset::open(&path, &model.graph, None).unwrap();
    let options = DistillOptions { epochs: Some(10), learning_rates: vec![0.05], ..quick() };
    let report = distill(&teacher(), &mut model, &data, &options, &mut |_| true).unwrap();
    assert!(report.after < 0.9 * report.before, "{report:?}");
}

#[test]
fn what_does_not_match_is_refused() {
    let small = |inputs: &str, outputs: &str, body: &str| {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\" : 17]>\ng ({inputs}) => ({outputs})\n<float[64,10] w, float[10] s = {{1,1,1,1,1,1,1,1,1,1}}>\n{{ {body} }}"
        );
        let zeros = vec!["0.01"; 640].join(",");
        parse_model(&text.replace("float[64,10] w", &format!("float[64,10] w = {{{zeros}}}"))).unwrap()
    };
    let image = "float[batch,1,8,8] image";
    let body = "f = Flatten (image)  m = MatMul (f, w)";
    // Another number of classes.
    let mut nine = small(image, "float[batch,20] logits", &format!("{body}  logits = Concat <axis = 1> (m, m)"));
    let text = error(run(&mut nine, 64, &quick()));
    assert!(text.contains("\"logits\" has shape") && text.contains("20]"), "{text}");
    // Another number of outputs.
    let mut two = small(image, "float[batch,10] a, float[batch,10] c", &format!("{body}  a = Mul (m, s)  c = Neg (a)"));
    let text = error(run(&mut two, 64, &quick()));
    assert!(text.contains("outputs do not match") && text.contains("a, c"), "{text}");
    // Nothing to train.
    let mut none = small(image, "float[batch,10] logits", &format!("{body}  r = Round (m)  logits = Identity (r)"));
    let text = error(run(&mut none, 64, &quick()));
    assert!(text.contains("nothing in the student can be trained") && text.contains("Round"), "{text}");
    // NaN names its node.
    let mut nan =
        small(image, "float[batch,10] logits", &format!("{body}  n = Neg (m)  k = Sqrt (n)  logits = Mul (k, s)"));
    let text = error(run(&mut nan, 64, &quick()));
    assert!(text.contains("NaN") && text.contains("Sqrt"), "{text}");
    // Weights and targets that are no numbers are named before any training.
    let text = error(run(&mut with_nan(student()), 64, &quick()));
    assert!(text.contains("\" of the student holds NaN"), "{text}");
    let mut model = student();
    let few = data(&model, 64);
    let text = error(distill(&with_nan(teacher()), &mut model, &few, &quick(), &mut |_| true));
    assert!(text.contains("the teacher's output \"logits\" is NaN") && text.contains("sample 0"), "{text}");
    // One sample.
    let text = error(run(&mut student(), 1, &quick()));
    assert!(text.contains("there is 1"), "{text}");
    let options = DistillOptions { losses: [("scores".to_string(), LossKind::Mse)].into(), ..quick() };
    assert!(error(run(&mut student(), 64, &options)).contains("\"scores\""));
    assert!(error(run(&mut student(), 64, &DistillOptions { temperature: 0.0, ..quick() })).contains("temperature"));
}

#[test]
fn what_lies_above_an_operator_without_a_rule_is_frozen() {
    let model = parse_model(
        r#"<ir_version: 8, opset_import: ["" : 17]>
        g (float[2,3] x) => (float[2,3] y)
        <float[3] a = {1, 2, 3}, float[3] b = {1, 1, 1}>
        { m = Mul (x, a)  r = Round (m)  y = Mul (r, b) }"#,
    )
    .unwrap();
    let network = Network::<f32>::new(&model, &NetworkOptions::default()).unwrap();
    let feed = [("x".to_string(), Tensor::from_f32(&[2, 3], &[0.1; 6]))].into();
    let frozen = network.frozen(&feed).unwrap();
    assert_eq!(frozen.len(), 1);
    assert!(frozen[0].parameter == "a" && frozen[0].why.contains("Round"), "{frozen:?}");
    let tape = network.forward(&network.parameters().unwrap(), &feed, false).unwrap();
    assert_eq!(tape.output(0).unwrap().data(), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
}
