//! Model-local functions, against answers worked out by hand.

use sardonyx::io::text::parse_model;
use sardonyx::io::{Feed, model_from_proto, model_to_proto};
use sardonyx::ir::{Model, Tensor};
use sardonyx::passes::inline_functions;
use sardonyx::runtime::{Runner, RunnerOptions};

fn execute(model: &Model, tensors: &[(&str, Tensor)], options: &RunnerOptions) -> Result<Vec<Tensor>, String> {
    let feed: Feed = tensors.iter().map(|(name, t)| (name.to_string(), t.clone())).collect();
    let outputs = Runner::new(model, options).and_then(|r| r.run(&feed)).map_err(|e| e.to_string())?;
    Ok(outputs.iter().map(|o| o.to_tensor().unwrap()).collect())
}

/// Runs the model, and the model with its functions inlined and written out: they must not differ.
fn try_run(text: &str, tensors: &[(&str, Tensor)], options: &RunnerOptions) -> Result<Vec<Tensor>, String> {
    let mut model = parse_model(text).unwrap();
    model.verify().unwrap();
    let outputs = execute(&model, tensors, options)?;
    assert!(inline_functions(&mut model).unwrap() > 0);
    assert!(model.functions.is_empty());
    model.verify().unwrap();
    let written = model_from_proto(model_to_proto(&model).unwrap()).unwrap();
    assert_eq!(execute(&written, tensors, options).unwrap(), outputs);
    Ok(outputs)
}

fn run(text: &str, tensors: &[(&str, Tensor)]) -> Vec<Tensor> {
    try_run(text, tensors, &RunnerOptions::default()).unwrap()
}

fn refusal(text: &str, tensors: &[(&str, Tensor)]) -> String {
    try_run(text, tensors, &RunnerOptions::default()).unwrap_err()
}

fn int(n: i64) -> Tensor {
    Tensor::from_i64(&[], &[n])
}

fn f32s(dims: &[usize], data: &[f32]) -> Tensor {
    Tensor::from_f32(dims, data)
}

#[test]
fn functions_take_attributes_and_defaults_and_call_each_other() {
    let text = r#"
<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
g (float[3] x) => (float[3] y, float[3] z, float[3] same)
{
    y = local.Leak <slope = 0.5> (x)
    t = local.Twice (x)
    z = Add (t, y)
    same = local.Same (x)
}
<domain: "local", opset_import: ["" : 17]>
Leak <slope: float = 0.25> (x) => (y)
{
    t = LeakyRelu <alpha: float = @slope> (x)
    y = Identity (t)
}
<domain: "local", opset_import: ["" : 17, "local" : 1]>
Twice (x) => (z)
{
    y = local.Leak (x)
    z = local.Leak <slope = 0.5> (y)
}
<domain: "local", opset_import: ["" : 17]>
Same (v) => (v) {}
"#;
    let outputs = run(text, &[("x", f32s(&[3], &[-8.0, 0.0, 4.0]))]);
    assert_eq!(outputs[0], f32s(&[3], &[-4.0, 0.0, 4.0]));
    assert_eq!(outputs[1], f32s(&[3], &[-5.0, 0.0, 8.0]));
    assert_eq!(outputs[2], f32s(&[3], &[-8.0, 0.0, 4.0]));
    let observe = RunnerOptions { observe: vec!["t".into()], ..RunnerOptions::default() };
    let observed = try_run(text, &[("x", f32s(&[3], &[-8.0, 0.0, 4.0]))], &observe).unwrap();
    assert_eq!(observed[3], f32s(&[3], &[-1.0, 0.0, 4.0]));
}

#[test]
fn a_function_hides_the_operator_of_its_name() {
    let text = r#"
<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x) => (float[2] y)
{
    y = Relu (x)
}
<domain: "", opset_import: ["" : 17]>
Relu (x) => (y)
{
    y = Neg (x)
}
"#;
    assert_eq!(run(text, &[("x", f32s(&[2], &[-1.0, 2.0]))]), [f32s(&[2], &[1.0, -2.0])]);
}

#[test]
fn bodies_in_functions_and_calls_in_bodies() {
    // `s` and `t` are names in the graph, the function and the bodies; each means its own.
    let text = r#"
<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
g (int64 m, float s) => (float y)
<float t = {100}>
{
    u = Loop (m, "", s) <body = b (int64 i, bool go, float v) => (bool more, float w) {
        more = Identity (go)
        w = local.Power <exponent = 2> (v, s)
    }>
    y = Add (u, t)
}
<domain: "local", opset_import: ["" : 17]>
Power <exponent> (s, t) => (w)
{
    m = Constant <value_int: int = @exponent> ()
    u = Mul (s, t)
    w = Loop (m, "", s) <body = b (int64 i, bool go, float v) => (bool more, float y) {
        more = Identity (go)
        y = Add (v, u)
    }>
}
"#;
    // v -> v + 2 * v * s, with s = 3: times 7.
    assert_eq!(run(text, &[("m", int(2)), ("s", f32s(&[], &[3.0]))]), [f32s(&[], &[247.0])]);
}

#[test]
fn a_function_in_an_older_operator_set_is_upgraded() {
    let text = r#"
<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
g (float[2,3] x) => (float[2] y)
{
    y = local.Total <axes = [1]> (x)
}
<domain: "local", opset_import: ["" : 11]>
Total <axes> (x) => (y)
{
    y = ReduceSum <axes: ints = @axes, keepdims = 0> (x)
}
"#;
    let x = f32s(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(run(text, &[("x", x.clone())]), [f32s(&[2], &[6.0, 15.0])]);
    let newer = text.replace("\"\" : 17", "\"\" : 11").replace("[\"\" : 11]", "[\"\" : 13]").replace(
        "y = ReduceSum <axes: ints = @axes, keepdims = 0> (x)",
        "a = Constant <value_ints: ints = @axes> () y = ReduceSum <keepdims = 0> (x, a)",
    );
    assert_eq!(run(&newer, &[("x", x)]), [f32s(&[2], &[6.0, 15.0])], "{newer}");
}

#[test]
fn an_input_that_a_call_leaves_out_is_absent() {
    let text = r#"
<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
g (float[2] x) => (float[2] y)
<float top = {1}>
{
    y = local.Limit (x, "", top)
}
<domain: "local", opset_import: ["" : 17]>
Limit (x, low, high) => (y)
{
    y = Clip (x, low, high)
}
"#;
    assert_eq!(run(text, &[("x", f32s(&[2], &[-3.0, 3.0]))]), [f32s(&[2], &[-3.0, 1.0])]);
}

#[test]
fn functions_that_have_no_end_are_errors() {
    let text = r#"
<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
g (float[2] x) => (float[2] y) { y = local.A (x) }
<domain: "local", opset_import: ["" : 17, "local" : 1]>
A (x) => (y) { y = local.B (x) }
<domain: "local", opset_import: ["" : 17, "local" : 1]>
B (x) => (y) { y = local.A (x) }
"#;
    let x = [("x", f32s(&[2], &[1.0, 2.0]))];
    let e = refusal(text, &x);
    assert!(e.contains("function local.A calls itself"), "{e}");
    // Twenty-four functions that call the next one twice: 2^24 nodes.
    let mut text = String::from(
        "<ir_version: 8, opset_import: [\"\" : 17, \"local\" : 1]> g (float[2] x) => (float[2] y) { y = local.F0 (x) }",
    );
    for k in 0..24 {
        let next = k + 1;
        text += &format!(
            "<domain: \"local\", opset_import: [\"\" : 17, \"local\" : 1]>
            F{k} (x) => (z) {{ y = local.F{next} (x) z = local.F{next} (y) }}"
        );
    }
    text += "<domain: \"local\", opset_import: [\"\" : 17]> F24 (x) => (y) { y = Neg (x) }";
    let e = refusal(&text, &x);
    assert!(e.contains("grow to more than"), "{e}");
}

#[test]
fn calls_that_do_not_fit_are_errors() {
    let net = |call: &str, domains: &str, body: &str| {
        format!(
            r#"
<ir_version: 8, opset_import: ["" : 17, "local" : 1, "other" : 2]>
g (float[2] x) => (float[2] y) {{ {call} }}
<domain: "local", opset_import: ["" : 17, "local" : 1{domains}]>
F (a) => (b) {{ {body} }}
"#
        )
    };
    let x = [("x", f32s(&[2], &[1.0, 2.0]))];
    let e = refusal(&net("y = local.F (x, x)", "", "b = Neg (a)"), &x);
    assert!(e.contains("it has 2 inputs and 1 outputs, the function 1 and 1"), "{e}");
    let e = refusal(&net("y, z = local.F (x)", "", "b = Neg (a)"), &x);
    assert!(e.contains("it has 1 inputs and 2 outputs"), "{e}");
    let e = refusal(&net("y = local.F (x)", "", "b = Add (a, elsewhere)"), &x);
    assert!(e.contains("nothing in the function defines \"elsewhere\""), "{e}");
    let e = refusal(&net("y = local.F (x)", ", \"other\" : 1", "b = other.Op (a)"), &x);
    assert!(e.contains("imports other 1, the model 2"), "{e}");
    let e = refusal(&net("y = local.F (x)", "", "b = local.Missing (a)"), &x);
    assert!(e.contains("local.Missing"), "{e}");
}

/// `count` functions, each of which calls the next one in a branch; the last one negates.
fn chain(count: usize) -> String {
    let mut text = String::from(
        "<ir_version: 8, opset_import: [\"\" : 17, \"local\" : 1]> g (float[2] x) => (float[2] y) { y = local.F0 (x) }",
    );
    for k in 0..count {
        let next = k + 1;
        text += &format!(
            "<domain: \"local\", opset_import: [\"\" : 17, \"local\" : 1]>
            F{k} (x) => (y) {{
                s = ReduceSum <keepdims = 0> (x)
                z = Sub (s, s)
                c = Equal (s, z)
                y = If (c) <then_branch = t () => (a) {{ a = Identity (x) }}, else_branch = e () => (b) {{ b = local.F{next} (x) }}>
            }}"
        );
    }
    text + &format!("<domain: \"local\", opset_import: [\"\" : 17]> F{count} (x) => (y) {{ y = Neg (x) }}")
}

#[test]
fn chains_of_functions_fit_a_small_stack_or_are_errors() {
    let x = [("x", f32s(&[2], &[1.0, 2.0]))];
    assert!(refusal(&chain(200), &x).contains("nested deeper"));
    let work = move || assert_eq!(run(&chain(60), &x), [f32s(&[2], &[-1.0, -2.0])]);
    std::thread::Builder::new().stack_size(2 << 20).spawn(work).unwrap().join().unwrap();
}
