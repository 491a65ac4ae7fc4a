//! Recovery: what pruning and sparsification lost is regained by training on the original's own outputs, resumed runs end
//! where whole ones do, and gradients rank channels and weights.

use prost::Message;
use sardonyx::drift::compare;
use sardonyx::io::{Dataset, load, model_to_proto};
use sardonyx::ir::Model;
use sardonyx::passes::PassContext;
use sardonyx::passes::prune::{self, PruneOptions, Target};
use sardonyx::passes::sparsify::{self, Goal, SparsifyOptions};
use sardonyx::recipe::{PruneStep, RecoverMethod, RecoverStep, Recovered, Silent, SparsifyStep};
use sardonyx::recover::{DistillOptions, KeptElements, distill, features};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

fn digits(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/digits").join(file)
}

fn original() -> Model {
    load(&digits("digits_resnet.onnx")).unwrap()
}

/// Relative L2 distance of the logits on data that the recovery has not seen.
fn drift(original: &Model, model: &Model) -> f64 {
    let data = Dataset::open(&digits("digits_test.npz"), &original.graph, None).unwrap();
    compare(original, model, &data, 64, &|| {}).unwrap()[0].relative_l2
}

fn recovery(feature_weight: f64) -> RecoverStep {
    let options = DistillOptions { epochs: Some(6), batch: Some(32), feature_weight, ..DistillOptions::for_recovery() };
    RecoverStep {
        method: RecoverMethod::Distill,
        data: Some(digits("digits_train.npz")),
        samples: Some(384),
        label: None,
        options,
    }
}

fn pruned(
    model: &mut Model,
    macs: f64,
    importance: prune::Measure,
    recover: Option<RecoverStep>,
) -> (f64, Option<Recovered>) {
    let options = PruneOptions { target: Target::Macs(macs), importance, ..PruneOptions::default() };
    let data = Some(digits("digits_calib.npz"));
    let step = PruneStep { data, samples: Some(64), options, recover, ..PruneStep::default() };
    let (_, report, recovered) = sardonyx::recipe::prune(model, &step, &PassContext::default(), None, &Silent).unwrap();
    (report.macs.1 as f64 / report.macs.0 as f64, recovered)
}

#[test]
fn a_pruned_model_regains_what_it_lost() {
    let original = original();
    let mut model = original.clone();
    let recovered = pruned(&mut model, 0.5, prune::Measure::L2, Some(recovery(1.0))).1.unwrap();
    // The ends of the residual blocks, with the channels that are left.
    assert!(recovered.report.features.len() >= 2, "{:?}", recovered.report.features);
    let (before, after) = (drift(&original, &recovered.untrained), drift(&original, &model));
    assert!(after < 0.5 * before, "relative L2 {before:.3} as it was cut, {after:.3} after training");
    model.verify().unwrap();
}

#[test]
fn zeros_stay_zeros_in_recovery() {
    let original = original();
    for goal in [Goal::Sparsity(0.7), Goal::Pattern("2:4".parse().unwrap())] {
        let mut model = original.clone();
        let options = SparsifyOptions { goal: Some(goal), ..SparsifyOptions::default() };
        let mut recover = recovery(1.0);
        recover.options.epochs = Some(12);
        let step = SparsifyStep { options, recover: Some(recover), ..SparsifyStep::default() };
        let cx = PassContext::default();
        let (_, report, recovered) = sardonyx::recipe::sparsify(&mut model, &step, &cx, None, &Silent).unwrap();
        let recovered = recovered.unwrap();
        let zero = |model: &Model, name: &str| -> Vec<bool> {
            let v = model.graph.find(name).unwrap();
            model.graph.constant(v).unwrap().to_f32().unwrap().iter().map(|&x| x == 0.0).collect()
        };
        assert!(recovered.report.kept_zeros > 0 && !report.layers.is_empty());
        for layer in &report.layers {
            let (was, is) = (zero(&recovered.untrained, &layer.name), zero(&model, &layer.name));
            assert!(was.iter().zip(&is).all(|(was, is)| is == was), "{}", layer.name);
        }
        let (before, after) = (drift(&original, &recovered.untrained), drift(&original, &model));
        assert!(after < 0.6 * before, "relative L2 {before:.3} before, {after:.3} after training");
    }
}

#[test]
fn a_resumed_run_ends_where_a_whole_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.npz");
    let teacher = original();
    let data = |model: &Model| {
        let mut data = Dataset::open(&digits("digits_train.npz"), &model.graph, None).unwrap();
        data.limit(128);
        data
    };
    let options = |resume: Option<&Path>| DistillOptions {
        epochs: Some(3),
        batch: Some(16),
        resume: resume.map(Path::to_path_buf),
        ..DistillOptions::default()
    };
    let run = |options: &DistillOptions, most: usize| {
        let mut student = load(&digits("digits_student.onnx")).unwrap();
        let data = data(&student);
        let mut steps = 0;
        let mut watch = |_: &sardonyx::recover::Status| {
            steps += 1;
            steps < most
        };
        let report = distill(&teacher, &mut student, &data, options, &mut watch).unwrap();
        (model_to_proto(&student).unwrap().encode_to_vec(), report)
    };
    let (whole, report) = run(&options(None), usize::MAX);
    assert!(report.steps == 24 && report.stopped.is_none());
    let (_, first) = run(&options(Some(&path)), 10);
    assert_eq!((first.steps, first.stopped.as_deref()), (10, Some("interrupted")));
    let (resumed, second) = run(&options(Some(&path)), usize::MAX);
    assert_eq!((second.resumed_at, second.steps, second.best_step), (Some(10), 24, report.best_step));
    assert!(resumed == whole);
    // Another run must not go on from it; what is no checkpoint neither.
    let mut student = load(&digits("digits_student.onnx")).unwrap();
    let data = data(&student);
    let other = DistillOptions { temperature: 2.0, ..options(Some(&path)) };
    let error = distill(&teacher, &mut student, &data, &other, &mut |_| true).unwrap_err().to_string();
    assert!(error.contains("run.npz") && error.contains("another run"), "{error}");
    let wrong = DistillOptions { resume: Some(digits("digits_test.npz")), ..options(None) };
    let error = distill(&teacher, &mut student, &data, &wrong, &mut |_| true).unwrap_err().to_string();
    assert!(error.contains("not a checkpoint"), "{error}");
}

#[test]
fn gradients_rank_channels_better_than_chance() {
    let original = original();
    let cut = |measure| {
        let mut model = original.clone();
        // Little enough that outputs still say something.
        let share = pruned(&mut model, 0.85, measure, None).0;
        assert!(share > 0.7 && share <= 0.85, "{measure:?}: {share}");
        drift(&original, &model)
    };
    let chance = cut(prune::Measure::Random);
    for measure in [prune::Measure::WeightedFisher, prune::Measure::GroupFisher, prune::Measure::Taylor] {
        let found = cut(measure);
        assert!(found < 0.9 * chance, "{measure:?}: relative L2 {found:.3}, by chance {chance:.3}");
    }
}

#[test]
fn a_threshold_is_one_of_the_importance_that_was_asked_for() {
    let original = original();
    let measures = [
        (sparsify::Measure::Fisher, sardonyx::recover::Measure::Fisher),
        (sparsify::Measure::Taylor, sardonyx::recover::Measure::Taylor),
    ];
    for (importance, measure) in measures {
        let mut data = Dataset::open(&digits("digits_calib.npz"), &original.graph, None).unwrap();
        data.limit(32);
        let options = sardonyx::recover::ImportanceOptions::default();
        let (scores, _) = sardonyx::recover::importance(&original, &data, &options, &|| {}).unwrap();
        let scores: HashMap<String, Vec<f32>> =
            scores.into_iter().map(|i| (i.parameter.name.to_string(), i.weights(measure).to_vec())).collect();
        let all: Vec<f32> = scores.values().flatten().copied().collect();
        let limit = all.iter().sum::<f32>() / all.len() as f32 / 10.0;
        let options = SparsifyOptions { goal: Some(Goal::Threshold(limit)), importance, ..SparsifyOptions::default() };
        let data = Some(digits("digits_calib.npz"));
        let step = SparsifyStep { data, samples: Some(32), options, ..SparsifyStep::default() };
        let mut model = original.clone();
        let cx = PassContext::default();
        let (_, report, _) = sardonyx::recipe::sparsify(&mut model, &step, &cx, None, &Silent).unwrap();
        for layer in &report.layers {
            let read = |m: &Model| m.graph.constant(m.graph.find(&layer.name).unwrap()).unwrap().to_f32().unwrap();
            let (was, is) = (read(&original), read(&model));
            let want = scores[&layer.name].iter().zip(&was).map(|(s, w)| if *s < limit { 0.0 } else { *w });
            assert!(is.iter().zip(want).all(|(a, b)| *a == b), "{}", layer.name);
        }
        let nonzero = |f: fn(&(usize, usize)) -> usize| report.layers.iter().map(|l| f(&l.nonzero)).sum::<usize>();
        assert!(nonzero(|n| n.1) < nonzero(|n| n.0), "{importance:?} found nothing below {limit}");
    }
}

#[test]
fn transformers_have_a_narrow_point_after_each_layer() {
    let model = load(&digits("digits_vit.onnx")).unwrap();
    let found = features(&model, &model, &KeptElements::new()).unwrap();
    assert!(found.len() >= 3, "{found:?}");
}
