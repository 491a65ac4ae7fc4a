//! `sardonyx distill`.

use super::sandbox::{Sandbox, digits};
use serde_json::Value;

fn args<'a>(teacher: &'a str, student: &'a str, data: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["distill", teacher, student, "-o", "out.onnx", "--data", data, "--epochs", "2"], more].concat()
}

#[test]
fn distill_trains_a_student_and_compares_it_with_its_teacher() {
    let s = Sandbox::new();
    let (teacher, student) = (digits("digits_resnet.onnx"), digits("digits_student.onnx"));
    let (train, test) = (digits("digits_train.npz"), digits("digits_test.npz"));
    let more = ["--validate-data", &test, "--label", "label", "--batch", "32", "--samples", "200", "--json"];
    let run = s.run(&args(&teacher, &student, &train, &more));
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let d = &report["distillation"];
    assert!(d["after"].as_f64().unwrap() < d["before"].as_f64().unwrap(), "{d}");
    assert_eq!((d["losses"]["logits"].as_str(), d["training_samples"].as_u64()), (Some("kl"), Some(180)));
    let bytes = s.bytes("out.onnx");
    // The recipe that the command spells gives the same bytes, on one thread too.
    let recipe = s
        .run(&args(
            &teacher,
            &student,
            &train,
            &["--batch", "32", "--samples", "200", "--no-validate", "--print-recipe"],
        ))
        .stdout;
    s.write("recipe.toml", recipe.as_bytes());
    let run = s.run(&["apply", "recipe.toml", &student, "-o", "again.onnx", "--threads", "1"]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert!(run.stdout.contains("trained 8 parameters") && run.stdout.contains("validation "), "{}", run.stdout);
    assert!(s.bytes("again.onnx") == bytes);
}

#[test]
fn what_distill_refuses() {
    let s = Sandbox::new();
    let (teacher, student) = (digits("digits_resnet.onnx"), digits("digits_student.onnx"));
    let train = digits("digits_train.npz");
    let refused = |more: &[&str], want: &str| s.refused(&args(&teacher, &student, &train, more), want);
    refused(&["--samples", "1"], "there is 1");
    refused(&["--loss", "scores=mse"], "\"scores\"");
    refused(&["--label-weight", "0.5"], "--label");
    refused(&["--temperature", "0"], "temperature must be above 0");
    refused(&["--warm-up", "2"], "warm-up must lie between 0 and 1");
    s.refused(&args(&teacher, &student, "none.npz", &[]), "none.npz");
    s.refused(
        &["distill", &teacher, &student, "-o", "no/folder/out.onnx", "--data", &train],
        "cannot write no/folder/out.onnx",
    );
    s.refused(&args("absent.onnx", &student, &train, &[]), "absent.onnx");
    let run = s.run(&args(&teacher, &student, &train, &["--loss", "logits=huber"]));
    assert!(run.status == 2 && run.stderr.contains("no loss \"huber\""), "{}", run.stderr);
}

#[test]
fn prune_trains_its_own_result() {
    let s = Sandbox::new();
    let (model, train, test) = (digits("digits_resnet.onnx"), digits("digits_train.npz"), digits("digits_test.npz"));
    let args = ["prune", &model, "-o", "out.onnx", "--macs", "0.5", "--repair", "--data", &train, "--samples", "128"];
    let train = ["--recover", "distill", "--minutes", "0.02", "--html", "curve.html", "--resume", "run.npz"];
    let judge = ["--validate-data", &test, "--label", "label", "--json"];
    let run = s.run(&[&args[..], &train, &judge].concat());
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    // Held out: the last of all samples in the file, which the repair did not see.
    let d = &report["distillation"];
    assert!(d["held_out_samples"].as_u64() > Some(0) && d["features"].as_array().unwrap().len() > 1, "{d}");
    let before = &report["drift"]["untrained"][0]["accuracy"];
    assert!(before["drop_interval"].as_array().is_some_and(|i| i.len() == 2), "{before}");
    assert!(String::from_utf8(s.bytes("curve.html")).unwrap().contains("<svg"));
}

#[test]
fn what_recovery_refuses() {
    let s = Sandbox::new();
    let (model, train) = (digits("digits_resnet.onnx"), digits("digits_train.npz"));
    s.refused(&["prune", &model, "-o", "out.onnx", "--recover", "distill"], "give --data");
    s.refused(&["sparsify", &model, "-o", "out.onnx", "--sparsity", "0.5", "--recover", "distill"], "give --data");
    let command = ["sparsify", &model, "-o", "no/folder/out.onnx", "--sparsity", "0.5", "--data", &train];
    s.refused(&[&command[..], &["--recover", "distill"]].concat(), "cannot write no/folder/out.onnx");
    let html = ["--recover", "distill", "--html", "no/folder/curve.html"];
    s.refused(&[&["prune", &model, "-o", "out.onnx", "--data", &train][..], &html].concat(), "no/folder/curve.html");
    let run = s.run(&["prune", &model, "-o", "out.onnx", "--minutes", "1"]);
    assert_eq!(run.status, 2, "{}", run.stderr);
}
