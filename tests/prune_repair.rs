//! Repair of pruned models on data without labels: it brings outputs nearer to the original's, the same bytes every time,
//! and leaves shapes as pruning made them.

use prost::Message;
use sardonyx::drift::compare;
use sardonyx::io::{Dataset, load, model_to_proto};
use sardonyx::ir::Model;
use sardonyx::passes::PassContext;
use sardonyx::passes::prune::{PruneOptions, Target};
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
