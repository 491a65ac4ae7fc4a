//! Repair of pruned models on data without labels: it brings outputs nearer to the original's, the same bytes every time,
//! and leaves shapes as pruning made them.

use prost::Message;
use sardonyx::drift::compare;
use sardonyx::io::text::parse_model;
use sardonyx::io::{Dataset, load, model_to_proto};
use sardonyx::ir::Model;
use sardonyx::passes::PassContext;
use sardonyx::passes::prune::{Measure, PruneOptions, Target};
use sardonyx::recipe::{PruneReport, PruneStep, Silent, prune};
use std::path::{Path, PathBuf};

fn digits(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/digits").join(file)
}

fn pruned(original: &Model, repair: bool) -> (Model, PruneReport) {
    let mut model = original.clone();
    let options = PruneOptions { target: Target::Ratio(0.25), repair, ..PruneOptions::default() };
    let step = PruneStep { data: Some(digits("digits_calib.npz")), options, ..PruneStep::default() };
    let (_, report, _) = prune(&mut model, &step, &PassContext::default(), None, &Silent).unwrap();
    (model, report)
}

/// Relative L2 distance of the logits on data that the repair has not seen.
fn drift(original: &Model, model: &Model) -> f64 {
    let data = Dataset::open(&digits("digits_test.npz"), &original.graph, None).unwrap();
    compare(original, model, &data, 64, &|| {}).unwrap()[0].relative_l2
}

#[test]
fn repair_brings_outputs_nearer_to_the_originals() {
    for name in ["digits_resnet.onnx", "digits_mobile.onnx", "digits_resnet_dynamo.onnx"] {
        let original = load(&digits(name)).unwrap();
        let ((plain, cut), (repaired, mended)) = (pruned(&original, false), pruned(&original, true));
        assert!(cut.refitted == 0 && mended.refitted > 0, "{name}: {} layers were refitted", mended.refitted);
        assert_eq!((cut.macs, cut.params.0), (mended.macs, mended.params.0), "{name}: repair changes no shape");
        let (before, after) = (drift(&original, &plain), drift(&original, &repaired));
        assert!(after < 0.8 * before, "{name}: relative L2 {before:.3} without repair, {after:.3} with it");
    }
}

#[test]
fn repair_gives_the_same_bytes_again() {
    let original = load(&digits("digits_resnet.onnx")).unwrap();
    let bytes = || model_to_proto(&pruned(&original, true).0).unwrap().encode_to_vec();
    assert!(bytes() == bytes());
}

fn with(original: &Model, options: PruneOptions) -> (Model, PruneReport) {
    let mut model = original.clone();
    let step = PruneStep { data: Some(digits("digits_calib.npz")), options, ..PruneStep::default() };
    let (_, report, _) = prune(&mut model, &step, &PassContext::default(), None, &Silent).unwrap();
    (model, report)
}

#[test]
fn second_order_saliency_beats_chance() {
    let original = load(&digits("digits_resnet.onnx")).unwrap();
    let of = |importance| {
        let options = PruneOptions { target: Target::Macs(0.5), global: true, importance, ..PruneOptions::default() };
        let (model, report) = with(&original, options);
        assert!(report.macs.1 * 2 <= report.macs.0);
        drift(&original, &model)
    };
    let (chance, found) = (of(Measure::Random), of(Measure::Hessian));
    assert!(found < 0.9 * chance, "relative L2 {chance:.3} by chance, {found:.3} by saliency");
}

/// Rounds reach the same target as one step, and what they kept together names channels of the original.
#[test]
fn rounds_reach_the_target_and_their_maps_add_up() {
    let original = load(&digits("digits_resnet.onnx")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let map = folder.path().join("map.json");
    let options = PruneOptions { target: Target::Macs(0.5), iterations: 3, ..PruneOptions::default() };
    let step = PruneStep { map: Some(map.clone()), options, ..PruneStep::default() };
    let mut model = original.clone();
    let (_, report, _) = prune(&mut model, &step, &PassContext::default(), None, &Silent).unwrap();
    assert!((0.3..=0.5).contains(&(report.macs.1 as f64 / report.macs.0 as f64)), "{:?}", report.macs);
    let kept: std::collections::BTreeMap<String, std::collections::BTreeMap<usize, Vec<usize>>> =
        serde_json::from_str(&std::fs::read_to_string(&map).unwrap()).unwrap();
    let mut compared = 0;
    for (name, axes) in &kept {
        let constant = |m: &Model| m.graph.find(name).and_then(|v| m.graph.constant(v).cloned());
        let (Some(before), Some(after)) = (constant(&original), constant(&model)) else { continue };
        let sliced = axes.iter().fold(before.to_f32().unwrap(), |data, (&axis, kept)| {
            // Axes before this one have been cut already.
            let dim = |a: usize| if a < axis { axes.get(&a).map_or(before.dims[a], Vec::len) } else { before.dims[a] };
            let inner: usize = before.dims[axis + 1..].iter().product();
            let outer: usize = (0..axis).map(dim).product();
            let at = |o: usize, k: usize| (o * before.dims[axis] + k) * inner;
            (0..outer)
                .flat_map(|o| kept.iter().flat_map(move |&k| at(o, k)..at(o, k) + inner))
                .map(|i| data[i])
                .collect()
        });
        assert_eq!(sliced, after.to_f32().unwrap(), "{name}");
        compared += 1;
    }
    assert!(compared > 5);
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    let text = "<ir_version: 8, opset_import: [\"\" : 17]> g (float[N,2] x) => (float[N,2] y)
        <float[2,3] a = {1, nan, 3, 4, 5, 6}, float[3,2] b = {1, 2, 3, 4, 5, 6}> { h = MatMul(x, a) y = MatMul(h, b) }";
    let mut model = parse_model(text).unwrap();
    let error =
        prune(&mut model, &PruneStep::default(), &PassContext::default(), None, &Silent).err().unwrap().to_string();
    assert!(error.contains("\"a\"") && error.contains("NaN"), "{error}");
}

/// Nothing but zeros, or nothing to remove: no division by zero, one channel stays.
#[test]
fn layers_of_zeros_are_pruned_like_others() {
    let text = "<ir_version: 8, opset_import: [\"\" : 17]> g (float[N,2] x) => (float[N,2] y)
        <float[2,4] a = {0, 0, 0, 0, 0, 0, 0, 0}, float[4,2] b = {0, 0, 0, 0, 0, 0, 0, 0}> { h = MatMul(x, a) y = MatMul(h, b) }";
    for importance in [Measure::L1, Measure::L2, Measure::Fpgm, Measure::Hessian, Measure::Activation] {
        for (ratio, left) in [(0.5, 2), (1.0, 1)] {
            let mut model = parse_model(text).unwrap();
            let options = PruneOptions {
                target: Target::Ratio(ratio),
                importance,
                global: ratio == 0.5,
                repair: true,
                ..PruneOptions::default()
            };
            let step = PruneStep { options, ..PruneStep::default() };
            let (_, report, _) = prune(&mut model, &step, &PassContext::default(), None, &Silent).unwrap();
            assert!(report.random);
            let dims = &model.graph.constant(model.graph.find("a").unwrap()).unwrap().dims;
            assert!(dims[1] >= 1 && (ratio == 1.0 || dims[1] <= 4), "{importance:?}: {dims:?}");
            assert_eq!(if ratio == 1.0 { dims[1] } else { left }, left, "{importance:?}");
        }
    }
}
