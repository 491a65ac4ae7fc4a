//! The `sardonyx` command as its users see it: arguments in, files, text and exit status out.

mod bad_input;
mod distill;
mod sandbox;
mod simplify;

use sandbox::{Sandbox, digits};
use sardonyx::io::load;
use serde_json::Value;
use std::fs;

fn calib() -> String {
    digits("digits_calib.npz")
}

fn resnet() -> String {
    digits("digits_resnet_dynamo.onnx")
}

#[test]
fn quantize_writes_a_model_and_says_what_it_cost() {
    let s = Sandbox::new();
    let test = digits("digits_test.npz");
    let more = ["--validate-data", &test, "--label", "label", "--max-drop", "0.4", "--min-sqnr", "30"];
    let run = s.run(&[&["quantize", &resnet(), "-o", "out.onnx", "--data", &calib()], &more[..]].concat());
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    for part in ["calibrated 10 values on 256 samples", "left in float", "SQNR", "accuracy", "wrote out.onnx"] {
        assert!(run.stdout.contains(part), "no {part:?} in {}", run.stdout);
    }
    assert_eq!(s.files(), ["out.onnx"]);
    let size = |path: &str| fs::metadata(path).unwrap().len();
    assert!(size(s.path("out.onnx").to_str().unwrap()) * 2 < size(&resnet()));
}

#[test]
fn every_report_is_json_on_request() {
    let s = Sandbox::new();
    let json = |args: &[&str]| -> Value {
        let run = s.run(args);
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{args:?}");
        serde_json::from_str(&run.stdout).unwrap()
    };
    let report = json(&["quantize", &resnet(), "-o", "out.onnx", "--data", &calib(), "--json"]);
    assert_eq!(report["written"], true);
    assert_eq!(report["calibration"]["samples"], 256);
    assert!(report["drift"]["outputs"][0]["sqnr_db"].as_f64().unwrap() > 30.0);
    let float = report["coverage"]["float"].as_array().unwrap();
    assert!(float.iter().all(|n| !n["reason"].as_str().unwrap().is_empty()));
    let report = json(&["validate", &resnet(), "out.onnx", "--data", &calib(), "--label", "label", "--json"]);
    assert_eq!(report["outputs"][0]["accuracy"]["labelled"], 256);
    let report = json(&["inspect", "out.onnx", "--json"]);
    assert_eq!(report["quantized_ops"]["QLinearConv"], 6);
    assert_eq!(report["tract_cannot_run"], Value::Array(vec![]));
    assert_eq!(report["bytes"], fs::metadata(s.path("out.onnx")).unwrap().len());
}

#[test]
fn without_data_every_report_says_random() {
    let s = Sandbox::new();
    let run = s.run(&["quantize", &resnet(), "-o", "out.onnx"]);
    assert_eq!(run.stdout.matches("RANDOM").count(), 2, "{}", run.stdout);
    assert!(s.run(&["validate", &resnet(), "out.onnx"]).stdout.contains("RANDOM"));
}

#[test]
fn the_output_may_be_the_input() {
    let s = Sandbox::new();
    fs::copy(resnet(), s.path("m.onnx")).unwrap();
    let quantize = |out: &str| assert_eq!(s.run(&["quantize", "m.onnx", "-o", out, "--data", &calib()]).status, 0);
    quantize("other.onnx");
    quantize("m.onnx");
    assert_eq!(s.bytes("m.onnx"), s.bytes("other.onnx"));
    assert_eq!(s.files(), ["m.onnx", "other.onnx"]);
}

#[test]
fn a_broken_bound_is_status_3_and_no_file() {
    let s = Sandbox::new();
    let run = s.run(&["quantize", &resnet(), "-o", "out.onnx", "--data", &calib(), "--min-sqnr", "90"]);
    assert_eq!(run.status, 3);
    assert!(run.stdout.contains("at least 90 are required") && run.stdout.contains("NOT written"), "{}", run.stdout);
    assert_eq!(s.files(), [""; 0]);

    assert_eq!(s.run(&["quantize", &resnet(), "-o", "out.onnx", "--data", &calib()]).status, 0);
    let validate = |bound: &str, value: &str| {
        let more = ["--data", &calib(), "--label", "label", bound, value];
        s.run(&[&["validate", &resnet(), "out.onnx"], &more[..]].concat()).status
    };
    assert_eq!(validate("--min-sqnr", "30"), 0);
    assert_eq!(validate("--min-sqnr", "90"), 3);
    assert_eq!(validate("--min-agreement", "95"), 0);
    assert_eq!(validate("--max-drop", "0.5"), 0);
    // A negative drop is a gain, which this model does not make.
    assert_eq!(validate("--max-drop=-5", "--quiet"), 3);

    // An older result survives a newer one that breaks a bound.
    let before = s.bytes("out.onnx");
    let more = ["--per-tensor", "--min-sqnr", "90"];
    s.run(&[&["quantize", &resnet(), "-o", "out.onnx", "--data", &calib()], &more[..]].concat());
    assert_eq!((s.bytes("out.onnx") == before, s.files()), (true, vec!["out.onnx".to_string()]));
}

#[test]
fn a_recipe_does_what_its_command_does() {
    let s = Sandbox::new();
    let cases: [&[&str]; 4] = [
        &[],
        &["--format", "qdq", "--scope", "inputs", "--method", "percentile=99.9", "--exclude", "Gemm", "--no-validate"],
        &["--runtime", "ort", "--activations", "s8", "--symmetric-activations", "--samples", "100", "--batch", "7"],
        &["--per-tensor", "--asymmetric-weights", "--weights", "u8", "--include", "Conv", "--min-sqnr", "10"],
    ];
    for options in cases {
        let command = |more: &[&str]| s.run(&[&["quantize", &resnet(), "--data", &calib()], options, more].concat());
        let printed = command(&["--print-recipe"]);
        assert_eq!((printed.status, printed.stderr.as_str()), (0, ""), "{options:?}");
        fs::write(s.path("recipe.toml"), &printed.stdout).unwrap();
        let direct = command(&["-o", "direct.onnx"]);
        assert_eq!(direct.status, 0, "{options:?}: {}", direct.stderr);
        let applied = s.run(&["apply", "recipe.toml", &resnet(), "-o", "applied.onnx"]);
        assert_eq!((applied.status, applied.stderr.as_str()), (0, ""), "{options:?}");
        assert!(s.bytes("direct.onnx") == s.bytes("applied.onnx"), "{options:?}");
    }
}

#[test]
fn options_change_the_result() {
    let s = Sandbox::new();
    let mut seen: Vec<(Vec<&str>, Vec<u8>)> = vec![];
    for options in [
        vec![],
        vec!["--format", "qdq"],
        vec!["--format", "qdq", "--scope", "inputs"],
        vec!["--runtime", "ort"],
        vec!["--method", "minmax"],
        vec!["--method", "entropy"],
        vec!["--method", "percentile=99"],
        vec!["--activations", "s8"],
        vec!["--symmetric-activations"],
        vec!["--per-tensor"],
        vec!["--per-tensor", "--asymmetric-weights"],
        vec!["--weights", "u8"],
        vec!["--exclude", "Gemm"],
        vec!["--include", "Gemm"],
        vec!["--samples", "16"],
    ] {
        let command = ["quantize", &resnet(), "-o", "out.onnx", "--data", &calib()];
        let run = s.run(&[&command[..], &options].concat());
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{options:?}");
        load(&s.path("out.onnx")).unwrap().verify().unwrap();
        let bytes = s.bytes("out.onnx");
        if let Some((other, _)) = seen.iter().find(|(_, b)| *b == bytes) {
            panic!("{options:?} and {other:?} give the same file");
        }
        seen.push((options, bytes));
    }
}

#[test]
fn a_calibration_table_replaces_the_data() {
    let s = Sandbox::new();
    let quantize = |more: &[&str]| {
        let run = s.run(&[&["quantize", &resnet(), "--no-validate"], more].concat());
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{more:?}");
        run
    };
    quantize(&["-o", "a.onnx", "--data", &calib(), "--calibration-table", "t.json"]);
    let table = s.bytes("t.json");
    let run = quantize(&["-o", "b.onnx", "--calibration-table", "t.json"]);
    assert!(run.stdout.contains("on 256 samples"), "{}", run.stdout);
    assert!(s.bytes("a.onnx") == s.bytes("b.onnx"));
    // Another method needs no data either, and gives what the data give.
    quantize(&["-o", "c.onnx", "--calibration-table", "t.json", "--method", "entropy"]);
    quantize(&["-o", "d.onnx", "--data", &calib(), "--method", "entropy"]);
    assert!(s.bytes("c.onnx") == s.bytes("d.onnx") && s.bytes("a.onnx") != s.bytes("c.onnx"));
    assert!(s.bytes("t.json") == table, "a table that is used is not changed");
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let s = Sandbox::new();
    for (model, options) in [("digits_resnet_dynamo", "qlinear"), ("digits_mobile", "qdq"), ("digits_vit", "qlinear")] {
        let mut results = vec![];
        for threads in ["1", "2", "3"] {
            let (out, table) = (format!("{threads}.onnx"), format!("{threads}.json"));
            let model = digits(&format!("{model}.onnx"));
            let base = ["quantize", &model, "-o", &out, "--data", &calib(), "--format", options];
            let more = ["--json", "--threads", threads, "--calibration-table", &table];
            let run = s.run(&[&base[..], &more].concat());
            assert_eq!(run.status, 0, "{}", run.stderr);
            let report: Value = serde_json::from_str(&run.stdout).unwrap();
            results.push((s.bytes(&out), s.bytes(&table), report["drift"]["outputs"].clone()));
            fs::remove_file(s.path(&table)).unwrap();
        }
        assert!(results.iter().all(|r| *r == results[0]), "{model}");
    }
}

#[test]
fn a_model_that_is_already_quantized_is_noted() {
    let s = Sandbox::new();
    let quantize = |from: &str, to: &str, format: &str| {
        s.run(&["quantize", from, "-o", to, "--data", &calib(), "--format", format])
    };
    for format in ["qlinear", "qdq"] {
        assert_eq!(quantize(&resnet(), "q.onnx", format).status, 0);
        let run = quantize("q.onnx", "again.onnx", format);
        assert_eq!((run.status, run.stderr.as_str()), (0, ""));
        assert!(run.stdout.contains("note"), "{}", run.stdout);
        assert!(s.bytes("q.onnx") == s.bytes("again.onnx"), "{format}: it was changed");
    }
}

#[test]
fn help_for_whoever_looks_for_a_bad_pass() {
    let s = Sandbox::new();
    let model = digits("digits_mobile.onnx");
    let quantize = |more: &[&str]| {
        let run = s.run(&[&["quantize", &model, "-o", "out.onnx", "--data", &calib()], more].concat());
        assert_eq!(run.status, 0, "{more:?}: {}", run.stderr);
        run
    };
    let dump = quantize(&["--dump-after", "fold_batch_norm"]).stderr;
    let dumped = sardonyx::io::text::parse_model(&dump).unwrap();
    let ops: Vec<String> = dumped.graph.nodes().map(|n| dumped.graph.node(n).op.to_string()).collect();
    assert!(ops.iter().any(|o| o == "Conv") && !ops.iter().any(|o| o == "BatchNormalization"), "{ops:?}");
    let plain = s.bytes("out.onnx");
    let run = quantize(&["--check-each"]);
    assert!(!run.stdout.contains("rolled back") && s.bytes("out.onnx") == plain, "{}", run.stdout);
    quantize(&["--fuel", "3"]);
    assert!(s.bytes("out.onnx") != plain);
}
