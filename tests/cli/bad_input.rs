//! Whatever is wrong with the input: one clear line, status 1, no panic, no file.

use crate::sandbox::{BIAS, Sandbox, WEIGHTS, digits, ramp, small_model};
use prost::Message;
use sardonyx::io::{text, write_npz};
use sardonyx::ir::Tensor;
use sardonyx::proto::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, ValueInfoProto,
    tensor_proto::DataLocation,
};
use std::fs;

/// A sandbox with a model that works and data for it.
fn sandbox() -> Sandbox {
    let s = Sandbox::new();
    s.write_model("m.onnx", &small_model(WEIGHTS, BIAS));
    s.write_data("d.npz", "x", ramp(&[8, 1, 4, 4]));
    s
}

/// Every command refuses the model file.
#[track_caller]
fn bad_model(s: &Sandbox, bytes: &[u8], want: &str) {
    s.write("bad.onnx", bytes);
    s.refused(&["quantize", "bad.onnx", "-o", "out.onnx", "--data", "d.npz"], want);
    s.refused(&["quantize", "bad.onnx", "-o", "bad.onnx"], want);
    s.refused(&["validate", "m.onnx", "bad.onnx", "--data", "d.npz"], want);
    s.refused(&["validate", "bad.onnx", "m.onnx"], want);
    s.refused(&["inspect", "bad.onnx"], want);
    assert_eq!(s.bytes("bad.onnx"), bytes, "the input was changed");
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    let input = inputs.iter().map(|s| s.to_string()).collect();
    NodeProto { op_type: Some(op.into()), input, output: vec![output.into()], ..Default::default() }
}

/// `x` to `y` through the nodes, in operator set 17.
fn graph(node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> Vec<u8> {
    let info = |name: &str| ValueInfoProto { name: Some(name.into()), ..Default::default() };
    let g = GraphProto { node, initializer, input: vec![info("x")], output: vec![info("y")], ..Default::default() };
    let opset = OperatorSetIdProto { version: Some(17), ..Default::default() };
    ModelProto { ir_version: Some(8), graph: Some(g), opset_import: vec![opset], ..Default::default() }.encode_to_vec()
}

#[test]
fn files_that_are_no_model() {
    let s = sandbox();
    bad_model(&s, b"", "bad.onnx: ");
    bad_model(&s, b"This is not a model.\n", "bad.onnx: ");
    bad_model(&s, &[0xff; 64], "bad.onnx: ");
    let whole = fs::read(digits("digits_resnet_dynamo.onnx")).unwrap();
    for end in [10, whole.len() / 2, whole.len() - 1] {
        bad_model(&s, &whole[..end], "bad.onnx: ");
    }
    s.refused(&["quantize", "absent.onnx", "-o", "out.onnx"], "absent.onnx");
    s.refused(&["inspect", "."], "folder");
}

#[test]
fn graphs_that_break_the_rules() {
    let s = sandbox();
    let twice = vec![node("Relu", &["x"], "y"), node("Neg", &["x"], "y")];
    bad_model(&s, &graph(twice, vec![]), "duplicate value name \"y\"");
    let cycle = vec![node("Add", &["x", "b"], "a"), node("Relu", &["a"], "b"), node("Relu", &["b"], "y")];
    bad_model(&s, &graph(cycle, vec![]), "cycle");
    bad_model(&s, &graph(vec![node("Relu", &["nowhere"], "y")], vec![]), "nothing produces \"nowhere\"");
}

#[test]
fn external_data_missing_or_outside() {
    let s = sandbox();
    let weight = |location: &str, length: &str| {
        let entry = |k: &str, v: &str| StringStringEntryProto { key: Some(k.into()), value: Some(v.into()) };
        let w = TensorProto {
            name: Some("w".into()),
            dims: vec![2],
            data_type: Some(1),
            data_location: Some(DataLocation::External as i32),
            external_data: vec![entry("location", location), entry("length", length)],
            ..Default::default()
        };
        graph(vec![node("Add", &["x", "w"], "y")], vec![w])
    };
    bad_model(&s, &weight("absent.bin", "8"), "absent.bin");
    bad_model(&s, &weight("../outside.bin", "8"), "leaves the model's folder");
    bad_model(&s, &weight("/etc/hostname", "8"), "leaves the model's folder");
    s.write("short.bin", &[0; 4]);
    bad_model(&s, &weight("short.bin", "8"), "beyond the end");
}

#[test]
fn data_that_do_not_fit() {
    let s = sandbox();
    let bad_data = |file: &str, want: &str| {
        s.refused(&["quantize", "m.onnx", "-o", "out.onnx", "--data", file], want);
        s.refused(&["quantize", "m.onnx", "-o", "out.onnx", "--data", "d.npz", "--validate-data", file], want);
        s.refused(&["validate", "m.onnx", "m.onnx", "--data", file], want);
    };
    s.write_data("dtype.npz", "x", Tensor::from_i64(&[1, 1, 4, 4], &[1; 16]));
    bad_data("dtype.npz", "x");
    s.write_data("rank.npz", "x", ramp(&[8, 16]));
    bad_data("rank.npz", "x");
    s.write_data("size.npz", "x", ramp(&[8, 1, 4, 5]));
    bad_data("size.npz", "x");
    s.write_data("name.npz", "z", ramp(&[8, 1, 4, 4]));
    bad_data("name.npz", "\"x\"");
    s.write_data("none.npz", "x", ramp(&[0, 1, 4, 4]));
    bad_data("none.npz", "no samples");
    for bad in [f32::NAN, f32::INFINITY] {
        let mut values = vec![0.5; 32];
        values[21] = bad;
        s.write_data("finite.npz", "x", Tensor::from_f32(&[2, 1, 4, 4], &values));
        bad_data("finite.npz", "x");
    }
    s.write("text.npz", b"x,y\n1,2\n");
    bad_data("text.npz", "text.npz");
    s.write("empty.npz", b"");
    bad_data("empty.npz", "empty.npz");
    bad_data("absent.npz", "absent.npz");
    fs::create_dir(s.path("folder")).unwrap();
    bad_data("folder", "folder");
}

#[test]
fn labels_that_do_not_fit() {
    let s = sandbox();
    let validate = |file: &str, want: &str| {
        s.refused(&["validate", "m.onnx", "m.onnx", "--data", file, "--label", "label"], want);
    };
    validate("d.npz", "label");
    let x = ("x".to_string(), ramp(&[8, 1, 4, 4]));
    write_npz(&s.path("few.npz"), &[x.clone(), ("label".into(), Tensor::from_i64(&[7], &[0; 7]))]).unwrap();
    validate("few.npz", "label");
    write_npz(&s.path("float.npz"), &[x, ("label".into(), Tensor::from_f32(&[8], &[0.0; 8]))]).unwrap();
    validate("float.npz", "label");
    s.refused(&["validate", "m.onnx", "m.onnx", "--label", "label"], "--data");
}

#[test]
fn weights_that_are_not_finite() {
    let s = sandbox();
    let bad_weight = |model: &sardonyx::ir::Model, want: &str| {
        s.write_model("bad.onnx", model);
        for format in ["qlinear", "qdq"] {
            s.refused(&["quantize", "bad.onnx", "-o", "out.onnx", "--data", "d.npz", "--format", format], want);
        }
    };
    bad_weight(
        &small_model("0.5,nan,0.25,1.0,0.1,0.2,-0.3,0.4", BIAS),
        "node \"conv\" (Conv): invalid model: \"w\" holds NaN at position 1",
    );
    bad_weight(&small_model("0.5,0.5,0.25,1.0,0.1,0.2,-0.3,-inf", BIAS), "\"w\" holds -inf at position 7");
    bad_weight(&small_model(WEIGHTS, "inf,0.0"), "\"b\" holds inf at position 0");
    // A weight of another kind shows in the values that it makes.
    let norm = r#"<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,1,4,4] x) => (float[N,1,4,4] y)
    <float[1,1,1,1] w = {1.0}, float[1] s = {1.0}, float[1] b = {0.5}, float[1] m = {nan}, float[1] v = {1.0}>
    { c = Conv (x, w) n = BatchNormalization (c, s, b, m, v) y = Conv (n, w) }"#;
    s.write_model("bad.onnx", &text::parse_model(norm).unwrap());
    s.refused(&["quantize", "bad.onnx", "-o", "out.onnx", "--data", "d.npz"], "value \"n\": data: NaN");
}

#[test]
fn targets_that_cannot_be_written() {
    let s = sandbox();
    fs::create_dir(s.path("folder")).unwrap();
    s.write("file", b"");
    for target in ["absent/out.onnx", "folder", "file/out.onnx", "."] {
        s.refused(&["quantize", "m.onnx", "-o", target, "--data", "d.npz"], "cannot write");
        assert_eq!(fs::read_dir(s.path("folder")).unwrap().count(), 0);
    }
    let table = ["--calibration-table", "absent/t.json"];
    s.refused(&[&["quantize", "m.onnx", "-o", "out.onnx", "--data", "d.npz"], &table[..]].concat(), "cannot write");
}

#[test]
fn requests_that_make_no_sense() {
    let s = sandbox();
    let refused = |more: &[&str], want: &str| {
        s.refused(&[&["quantize", "m.onnx", "-o", "out.onnx", "--data", "d.npz"], more].concat(), want);
    };
    refused(&["--exclude", "no_such_node"], "no_such_node");
    refused(&["--include", "Convolution"], "Convolution");
    refused(&["--exclude", "[z"], "[z");
    refused(&["--scope", "inputs"], "--format qdq");
    refused(&["--activations", "s8", "--weights", "u8"], "unsigned");
    refused(&["--asymmetric-weights"], "per-tensor");
    refused(&["--min-agreement", "101"], "agreement");
    refused(&["--min-sqnr", "nan"], "SQNR");
    refused(&["--threads", "0"], "--threads");
    refused(&["--dump-after", "no_such_pass"], "no_such_pass");
    // What the command line itself cannot read is clap's: status 2.
    for more in [["--method", "guess"], ["--method", "percentile=200"], ["--format", "onnx"], ["--samples", "-1"]] {
        assert_eq!(s.run(&[&["quantize", "m.onnx", "-o", "out.onnx"], &more[..]].concat()).status, 2, "{more:?}");
    }
    assert_eq!(s.run(&["quantize", "m.onnx"]).status, 2, "no output");
    assert_eq!(s.files(), ["d.npz", "m.onnx"]);
}

#[test]
fn recipes_that_say_something_unknown() {
    let s = sandbox();
    let good = s.run(&["quantize", "m.onnx", "--data", "d.npz", "--print-recipe"]).stdout;
    let refused = |recipe: &str, want: &str| {
        s.write("r.toml", recipe.as_bytes());
        s.refused(&["apply", "r.toml", "m.onnx", "-o", "out.onnx"], want);
    };
    for section in ["[quantize]", "[quantize.options]", "[validate.gate]"] {
        assert!(good.contains(section), "{good}");
        refused(&good.replace(section, &format!("{section}\ncolour = 1")), "colour");
    }
    refused(&format!("colour = 1\n{good}"), "colour");
    refused(&good.replace("version = 1", "version = 2"), "version 2");
    refused(&good.replace("version = 1", ""), "version");
    refused(&good.replace("\"u8\"", "\"u9\""), "u9");
    refused("version = ", "r.toml");
    s.refused(&["apply", "absent.toml", "m.onnx", "-o", "out.onnx"], "absent.toml");
}

#[test]
fn calibration_tables_that_do_not_fit() {
    let s = sandbox();
    let base = ["quantize", "m.onnx", "-o", "out.onnx", "--data", "d.npz", "--calibration-table", "t.json"];
    assert_eq!(s.run(&base).status, 0);
    fs::remove_file(s.path("out.onnx")).unwrap();
    let table = String::from_utf8(s.bytes("t.json")).unwrap();
    // The names are the same, the weights are not.
    s.write_model("m.onnx", &small_model(&WEIGHTS.replace("0.25", "0.75"), BIAS));
    s.refused(&base, "another model");
    s.write_model("m.onnx", &small_model(WEIGHTS, BIAS));
    for (bad, want) in [
        (table[..table.len() / 2].to_string(), "t.json"),
        (table.replace("\"version\": 1", "\"version\": 7"), "version 7"),
        (table.replace("\"samples\"", "\"sampels\""), "sampels"),
        (String::new(), "t.json"),
    ] {
        s.write("t.json", bad.as_bytes());
        s.refused(&base, want);
    }
}
