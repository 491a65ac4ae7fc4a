//! `sardonyx simplify`.

use super::sandbox::{Sandbox, digits};
use sardonyx::io::{load, text};
use sardonyx::ir::Model;
use serde_json::Value;

fn model(source: &str) -> Model {
    text::parse_model(source).unwrap()
}

/// Two branches over a shared Relu, shape arithmetic, and an If whose condition is constant.
const SMALL: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
small (float[batch, 4] x) => (float[batch, 4] y)
<float[4] w = {1.0, -2.0, 0.5, 3.0}, bool yes = {1}>
{
    [r1] a = Relu (x)
    [r2] b = Relu (x)
    [s] dims = Shape (a)
    [back] c = Reshape (b, dims)
    [i] d = Identity (c)
    [p] k = Add (w, w)
    [m] e = Mul (d, k)
    [choice] y = If (yes) <
        then_branch = t () => (float[batch, 4] p) { p = Add (e, a) },
        else_branch = f () => (float[batch, 4] q) { q = Neg (e) }
    >
}"#;

fn ops(s: &Sandbox, file: &str) -> Vec<String> {
    let model = load(&s.path(file)).unwrap();
    let order = model.graph.order().unwrap();
    order.into_iter().map(|id| model.graph.node(id).op.to_string()).collect()
}

#[test]
fn simplify_writes_a_smaller_model_and_executes_it() {
    let s = Sandbox::new();
    s.write_model("m.onnx", &model(SMALL));
    let run = s.run(&["simplify", "m.onnx", "-o", "out.onnx"]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    assert_eq!(ops(&s, "out.onnx"), ["Relu", "Mul", "Add"]);
    for part in ["inline_if", "executed against the original on 6 made-up inputs: same outputs", "wrote out.onnx"] {
        assert!(run.stdout.contains(part), "no {part:?} in {}", run.stdout);
    }
    let run = s.run(&["simplify", "m.onnx", "-o", "out.onnx", "--no-validate"]);
    assert!(run.stdout.contains("not executed"), "{}", run.stdout);
    let run = s.run(&["simplify", "out.onnx", "-o", "again.onnx"]);
    assert_eq!((run.status, s.bytes("out.onnx") == s.bytes("again.onnx")), (0, true), "{}", run.stdout);
}

#[test]
fn rules_can_be_chosen() {
    let s = Sandbox::new();
    s.write_model("m.onnx", &model(SMALL));
    let list = s.run(&["simplify", "--list-rules"]).stdout;
    assert!(list.contains("eliminate_identity") && list.contains("fold_batch_norm"), "{list}");
    s.run(&["simplify", "m.onnx", "-o", "only.onnx", "--only", "eliminate_identity"]);
    assert_eq!(ops(&s, "only.onnx").len(), 7);
    s.run(&["simplify", "m.onnx", "-o", "skip.onnx", "--skip", "inline_if,fold_constants"]);
    assert!(ops(&s, "skip.onnx").contains(&"If".to_string()));
    s.refused(&["simplify", "m.onnx", "-o", "out.onnx", "--skip", "no_such_rule"], "no_such_rule");
    assert_eq!(s.run(&["simplify", "m.onnx"]).status, 2, "no output");
}

#[test]
fn dimensions_and_parts_can_be_set() {
    let s = Sandbox::new();
    s.write_model("m.onnx", &model(SMALL));
    s.run(&["simplify", "m.onnx", "-o", "fixed.onnx", "--set-dim", "batch=3"]);
    let fixed = load(&s.path("fixed.onnx")).unwrap();
    let x = fixed.graph.find("x").unwrap();
    assert_eq!(fixed.graph.ty(x).unwrap().to_string(), "float[3, 4]");
    s.refused(&["simplify", "m.onnx", "-o", "out.onnx", "--set-dim", "bach=3"], "there are: batch");
    s.refused(&["simplify", "m.onnx", "-o", "out.onnx", "--set-dim", "batch=-3"], "-3");
    assert_eq!(s.run(&["simplify", "m.onnx", "-o", "out.onnx", "--set-dim", "batch"]).status, 2);

    let cut = ["--extract-inputs", "d", "--extract-outputs", "e"];
    let run = s.run(&[&["simplify", "m.onnx", "-o", "cut.onnx"], &cut[..]].concat());
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    let graph = load(&s.path("cut.onnx")).unwrap().graph;
    let names =
        |values: &[sardonyx::ir::ValueId]| values.iter().map(|&v| graph.name(v).to_string()).collect::<Vec<_>>();
    assert_eq!((names(graph.inputs()), names(graph.outputs())), (vec!["d".to_string()], vec!["e".to_string()]));
    assert_eq!(ops(&s, "cut.onnx"), ["Mul"]);
    s.refused(&["simplify", "m.onnx", "-o", "out.onnx", "--extract-inputs", "d"], "still needs the graph input \"x\"");
    s.refused(&["simplify", "m.onnx", "-o", "out.onnx", "--extract-outputs", "absent"], "no value \"absent\"");
    s.refused(&["simplify", "m.onnx", "-o", "out.onnx", "--extract-inputs", "w"], "is an initializer");
}

#[test]
fn the_operator_set_can_be_raised_but_not_lowered() {
    let s = Sandbox::new();
    s.write_model("m.onnx", &model(SMALL));
    s.run(&["simplify", "m.onnx", "-o", "out.onnx", "--target-opset", "21"]);
    assert_eq!(load(&s.path("out.onnx")).unwrap().default_opset(), 21);
    let run = s.run(&["simplify", "out.onnx", "-o", "old.onnx", "--target-opset", "13"]);
    assert_eq!(run.status, 0);
    assert!(run.stdout.contains("models are not moved back"), "{}", run.stdout);
    s.refused(&["simplify", "m.onnx", "-o", "new.onnx", "--target-opset", "1000"], "operator set 1000");
}

#[test]
fn what_cannot_be_executed_is_said() {
    let s = Sandbox::new();
    let source = r#"<ir_version: 8, opset_import: ["" : 17, "my.domain" : 1]>
        g (float[2] x) => (float[2] y) { [n] a = my.domain.Noise (x) b = Identity (a) y = Neg (b) }"#;
    s.write_model("m.onnx", &model(source));
    let run = s.run(&["simplify", "m.onnx", "-o", "out.onnx"]);
    assert_eq!(run.status, 0);
    assert!(run.stdout.contains("NOT EXECUTED against the original") && run.stdout.contains("Noise"), "{}", run.stdout);
    assert_eq!(ops(&s, "out.onnx"), ["my.domain.Noise", "Neg"]);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let s = Sandbox::new();
    let input = digits("digits_vit.onnx");
    s.run(&["simplify", &input, "-o", "a.onnx", "--threads", "1"]);
    s.run(&["simplify", &input, "-o", "b.onnx", "--threads", "2"]);
    assert_eq!(s.bytes("a.onnx"), s.bytes("b.onnx"));
}

#[test]
fn a_recipe_does_what_the_command_does() {
    let s = Sandbox::new();
    s.write_model("m.onnx", &model(SMALL));
    let options = ["--set-dim", "batch=2", "--skip", "inline_if", "--target-opset", "18"];
    s.run(&[&["simplify", "m.onnx", "-o", "a.onnx"], &options[..]].concat());
    let recipe = s.run(&[&["simplify", "m.onnx", "--print-recipe"], &options[..]].concat()).stdout;
    s.write("r.toml", recipe.as_bytes());
    let run = s.run(&["apply", "r.toml", "m.onnx", "-o", "b.onnx"]);
    assert_eq!((run.status, s.bytes("a.onnx") == s.bytes("b.onnx")), (0, true), "{}", run.stderr);
}

#[test]
fn run_stores_the_outputs() {
    let s = Sandbox::new();
    let (input, data) = (digits("digits_gru.onnx"), digits("digits_test.npz"));
    let run = s.run(&["run", &input, "--data", &data, "-o", "out.npz", "--samples", "7", "--batch", "3", "--json"]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""));
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["outputs"][0], serde_json::json!(["logits", "float", [7, 10]]));
    let joined = sardonyx::io::read_npz(&s.path("out.npz")).unwrap();
    s.run(&["run", &input, "--data", &data, "-o", "one.npz", "--samples", "7", "--batch", "7"]);
    let at_once = sardonyx::io::read_npz(&s.path("one.npz")).unwrap();
    let (a, b) = (joined[0].1.to_f32().unwrap(), at_once[0].1.to_f32().unwrap());
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4));
    assert!(s.run(&["run", &input]).stdout.contains("RANDOM"));
    s.refused(&["run", &input, "--data", &data, "--observe", "absent"], "absent");
    s.refused(&["run", "absent.onnx"], "absent.onnx");
    s.refused(&["run", &input, "--data", &data, "--samples", "0"], "at least 1");
}
