use super::super::{Comparison, Gate};
use super::*;
use crate::ir::Model;

fn report() -> DriftReport {
    let mut logits = Comparison::new();
    logits.update(&[2.0f32, 0.0, 0.0, 4.0], &[2.0, 0.0, 1.0, 4.0], &[2, 2], Some(&[0, 1])).unwrap();
    let mut state = Comparison::new();
    state.update(&[1i64, 2], &[1, 2], &[2], None).unwrap();
    let ops = |list: &[(&str, usize)]| list.iter().map(|(name, n)| (name.to_string(), *n)).collect();
    let outputs = vec![logits.finish("logits"), state.finish("state")];
    let violations = Gate { min_sqnr: Some(20.0), ..Gate::default() }.violations(&outputs);
    DriftReport {
        models: Change::new("a.onnx".into(), "b.onnx".into()),
        bytes: Change::new(1_113_219, 309_650),
        ops: Change::new(ops(&[("Conv", 21), ("Relu", 19)]), ops(&[("QLinearConv", 21), ("Relu", 19)])),
        macs: None,
        latency_ms: Some(Change::new(3.0, 1.5)),
        samples: 2,
        random: false,
        outputs,
        untrained: vec![],
        violations,
    }
}

#[test]
fn text_for_people() {
    let expected = "\
a.onnx -> b.onnx
bytes        1,113,219  ->  309,650              27.8%
nodes               40  ->       40             100.0%
ms in tract      3.000  ->    1.500  2.00 times faster
  Conv         21  ->   0
  QLinearConv   0  ->  21

drift over 2 samples
output  SQNR dB    rel. L2    max abs   mean abs    cosine  top-1 same  top-5 has
logits    13.01  2.236e-1    1.000e0   2.500e-1  0.985071     100.00%          -
state     equal   0.000e0    0.000e0    0.000e0  1.000000           -          -
logits: accuracy 100.00% -> 100.00%, drop 0.00 points (95% interval -49.00 to 49.00; of 2 samples 0 lost, 0 gained)
FAILED  logits: SQNR is 13.01 dB, at least 20 are required.
";
    // Widths are compared by eye; here only words count.
    let words =
        |text: &str| text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    assert_eq!(words(&report().render()), words(expected));
}

#[test]
fn columns_are_aligned() {
    let text = report().render();
    let table: Vec<&str> = text.lines().skip_while(|l| !l.starts_with("output")).take(3).collect();
    assert!(table.iter().all(|row| row.len() == table[0].len()), "{text}");
    assert_eq!(table[0].find("SQNR dB").unwrap() + 7, table[1].find("13.01").unwrap() + 5, "{text}");
}

#[test]
fn json_has_every_figure() {
    let json = serde_json::to_value(report()).unwrap();
    assert_eq!(json["bytes"]["after"], 309_650);
    assert_eq!(json["outputs"][1]["sqnr_db"], "inf");
    assert_eq!(json["outputs"][0]["accuracy"]["labelled"], 2);
    assert!(json["outputs"][1].get("accuracy").is_none());
    assert_eq!(json["random"], false);
}

#[test]
fn random_and_missing_data_are_said() {
    let random = DriftReport { random: true, samples: 1, ..report() };
    assert!(random.render().contains("drift over 1 RANDOM sample:"));
    let none = DriftReport { samples: 0, outputs: vec![], ..report() };
    assert!(none.render().contains("not executed"));
}

#[test]
#[allow(clippy::print_stderr)]
fn nodes_in_bodies_count() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/models/silero_vad_16k_op15.onnx");
    let Ok(bytes) = std::fs::read(path) else {
        eprintln!("skipped: {path} is absent");
        return;
    };
    let model: Model = crate::io::decode_model(bytes.into()).unwrap();
    let histogram = crate::analysis::cost::op_histogram(&model.graph);
    assert_eq!(histogram.values().sum::<usize>(), 350);
    assert!(histogram["If"] >= 1);
}
