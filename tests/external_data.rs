//! Saving with weights inside and outside the file.

use prost::Message;
use sardonyx::io::{ExternalData, SaveOptions, load, save, save_with};
use sardonyx::ir::{Graph, Model, Tensor};
use sardonyx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto,
    attribute_proto::AttributeType, tensor_proto::DataLocation,
};
use std::fs;
use std::path::{Path, PathBuf};

/// A weight that is copied from file to file rather than through the buffer.
const BIG: usize = 50_000;

fn floats(seed: usize, len: usize) -> Vec<f32> {
    (0..len).map(|k| ((k * 31 + seed * 7) % 1009) as f32 - 500.0).collect()
}

fn raw(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn weight(name: &str, values: &[f32]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: vec![values.len() as i64],
        data_type: Some(1),
        raw_data: Some(raw(values).into()),
        ..Default::default()
    }
}

fn outside(name: &str, location: &str, offset: usize, len: usize) -> TensorProto {
    let entry = |k: &str, v: String| StringStringEntryProto { key: Some(k.into()), value: Some(v) };
    TensorProto {
        name: Some(name.into()),
        dims: vec![len as i64],
        data_type: Some(1),
        data_location: Some(DataLocation::External as i32),
        external_data: vec![
            entry("location", location.into()),
            entry("offset", offset.to_string()),
            entry("length", (4 * len).to_string()),
        ],
        ..Default::default()
    }
}

fn info(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.into()), ..Default::default() }
}

fn sum(inputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: Some("Sum".into()),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: vec!["y".into()],
        ..Default::default()
    }
}

fn graph(node: NodeProto, initializer: Vec<TensorProto>) -> GraphProto {
    GraphProto { node: vec![node], input: vec![info("x")], output: vec![info("y")], initializer, ..Default::default() }
}

/// A graph with the weights, and an If with a body that has the other weights.
fn model(own: Vec<TensorProto>, inner: Vec<TensorProto>) -> ModelProto {
    let names = |ts: &[TensorProto]| ts.iter().map(|t| t.name().to_string()).collect::<Vec<_>>();
    let (own_names, inner_names) = (names(&own), names(&inner));
    let refs: Vec<&str> = ["x"].into_iter().chain(inner_names.iter().map(String::as_str)).collect();
    let mut body = graph(sum(&refs), inner);
    body.input.clear();
    body.node[0].output[0] = "z".into();
    body.output = vec![info("z")];
    let refs: Vec<&str> = ["from_body"].into_iter().chain(own_names.iter().map(String::as_str)).collect();
    let mut g = graph(sum(&refs), own);
    let mut branch = sum(&["x"]);
    branch.op_type = Some("If".into());
    branch.output = vec!["from_body".into()];
    let (name, ty) = (Some("then_branch".into()), Some(AttributeType::Graph as i32));
    branch.attribute.push(AttributeProto { name, r#type: ty, g: Some(body), ..Default::default() });
    g.node.insert(0, branch);
    ModelProto { ir_version: Some(8), graph: Some(g), ..Default::default() }
}

fn write(folder: &Path, m: &ModelProto) -> PathBuf {
    let path = folder.join("m.onnx");
    fs::write(&path, m.encode_to_vec()).unwrap();
    path
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

fn options(external: ExternalData, threshold: usize) -> SaveOptions {
    SaveOptions { external, threshold }
}

/// Every weight of the graph and its bodies, with its name.
fn weights(model: &Model) -> Vec<(String, Tensor)> {
    fn collect(g: &Graph, found: &mut Vec<(String, Tensor)>) {
        found.extend(g.values().filter_map(|v| Some((g.name(v).to_string(), g.value(v).init.clone()?))));
        g.nodes().for_each(|n| g.node(n).bodies().for_each(|b| collect(b, found)));
    }
    let mut found = vec![];
    collect(&model.graph, &mut found);
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Whether each weight is outside, as the file says, by name.
fn placed(path: &Path) -> Vec<(String, bool)> {
    fn collect(g: &GraphProto, found: &mut Vec<(String, bool)>) {
        let is_outside = |t: &TensorProto| t.data_location() == DataLocation::External;
        found.extend(g.initializer.iter().map(|t| (t.name().to_string(), is_outside(t))));
        g.node.iter().flat_map(|n| &n.attribute).filter_map(|a| a.g.as_ref()).for_each(|g| collect(g, found));
    }
    let message = ModelProto::decode(&*fs::read(path).unwrap()).unwrap();
    let mut found = vec![];
    collect(message.graph.as_ref().unwrap(), &mut found);
    found.sort();
    found
}

fn pairs(expected: &[(&str, bool)]) -> Vec<(String, bool)> {
    expected.iter().map(|(n, o)| (n.to_string(), *o)).collect()
}

#[test]
fn inline_weights_go_outside_from_the_threshold_on() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let mut typed = weight("typed", &[]);
    (typed.raw_data, typed.float_data, typed.dims) = (None, floats(1, 256), vec![256]);
    let own =
        vec![weight("big", &floats(2, BIG)), weight("below", &floats(3, 255)), weight("at", &floats(4, 256)), typed];
    let inner = vec![weight("inner", &floats(5, BIG)), weight("tiny", &floats(6, 1))];
    let m = load(&write(dir, &model(own, inner))).unwrap();
    let before = weights(&m);
    let out = dir.join("out.onnx");
    save_with(&m, &out, &options(ExternalData::Always, 1024)).unwrap();
    assert_eq!(names(dir), ["m.onnx", "out.onnx", "out.onnx.data"]);
    let want = [("at", true), ("below", false), ("big", true), ("inner", true), ("tiny", false), ("typed", true)];
    assert_eq!(placed(&out), pairs(&want));
    let again = load(&out).unwrap();
    assert_eq!(weights(&again), before);
    // Over itself, with another threshold; the loaded model still sees the old files.
    save_with(&again, &out, &options(ExternalData::Always, 10_000)).unwrap();
    let want = [("at", false), ("below", false), ("big", true), ("inner", true), ("tiny", false), ("typed", false)];
    assert_eq!(placed(&out), pairs(&want));
    assert_eq!(weights(&again), before);
    assert_eq!(weights(&load(&out).unwrap()), before);
    // And back into one file.
    let one = dir.join("one.onnx");
    save_with(&load(&out).unwrap(), &one, &options(ExternalData::Never, 0)).unwrap();
    assert!(!dir.join("one.onnx.data").exists());
    assert!(placed(&one).iter().all(|(_, outside)| !outside));
    assert_eq!(weights(&load(&one).unwrap()), before);
    // Without weights of that size there is no data file, and empty weights are never in one.
    let none = dir.join("none.onnx");
    save_with(&m, &none, &options(ExternalData::Always, usize::MAX)).unwrap();
    assert!(!dir.join("none.onnx.data").exists());
}

#[test]
fn outside_weights_at_odd_places() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let (a, b) = (floats(1, BIG), floats(2, BIG + 1));
    fs::write(dir.join("w.bin"), [&[9; 3], &raw(&a)[..], &raw(&b), &[7; 5]].concat()).unwrap();
    let own = vec![
        outside("a", "w.bin", 3, BIG),
        outside("b", "w.bin", 3 + 4 * BIG, BIG + 1),
        outside("overlap", "w.bin", 7, BIG),
        outside("small", "w.bin", 4, 2),
        weight("inline", &a),
    ];
    let inner = vec![outside("tied", "w.bin", 3, BIG)];
    let m = load(&write(dir, &model(own, inner))).unwrap();
    let before = weights(&m);
    let out = dir.join("out.onnx");
    save(&m, &out).unwrap();
    let want = [("a", true), ("b", true), ("inline", false), ("overlap", true), ("small", true), ("tied", true)];
    assert_eq!(placed(&out), pairs(&want));
    assert_eq!(weights(&load(&out).unwrap()), before);
    let size = fs::metadata(dir.join("out.onnx.data")).unwrap().len();
    assert!(size < 4 * 4 * BIG as u64, "{size}: what is tied is stored once");
    for k in 0..3 {
        let m = load(&out).unwrap();
        let kind = [ExternalData::Auto, ExternalData::Always, ExternalData::Never][k];
        save_with(&m, &out, &options(kind, 1024)).unwrap();
        assert_eq!(weights(&m), before, "the loaded model sees the files that it came from");
        assert_eq!(weights(&load(&out).unwrap()), before);
    }
}

#[test]
fn a_model_in_one_file_is_saved_over_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &model(vec![weight("w", &floats(1, BIG))], vec![weight("v", &floats(2, BIG))]));
    let bytes = fs::read(&path).unwrap();
    let m = load(&path).unwrap();
    let before = weights(&m);
    save(&m, &path).unwrap();
    save(&m, &path).unwrap();
    assert_eq!(weights(&m), before);
    assert_eq!(fs::read(&path).unwrap().len(), bytes.len());
    assert_eq!(weights(&load(&path).unwrap()), before);
    assert_eq!(names(folder.path()), ["m.onnx"]);
}

/// A data file that becomes shorter after loading: an error, and nothing is left behind.
#[test]
fn a_data_file_that_shrinks() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    fs::write(dir.join("w.bin"), raw(&floats(1, BIG))).unwrap();
    let path = write(dir, &model(vec![outside("w", "w.bin", 0, BIG)], vec![]));
    let m = load(&path).unwrap();
    fs::File::options().write(true).open(dir.join("w.bin")).unwrap().set_len(100).unwrap();
    for kind in [ExternalData::Auto, ExternalData::Never] {
        let e = save_with(&m, &dir.join("out.onnx"), &options(kind, 1024)).unwrap_err().to_string();
        assert!(e.contains("out.onnx") && e.contains("shorter") && !e.contains('\n'), "{e}");
    }
    assert_eq!(names(dir), ["m.onnx", "w.bin"]);
    let e = load(&path).unwrap_err().to_string();
    assert!(e.contains("m.onnx") && e.contains("beyond the end") && !e.contains('\n'), "{e}");
}

/// A model file with one weight of `len` bytes that takes no place on disk.
fn sparse_file(path: &Path, len: u64) {
    let varint = |n: u64| {
        let mut out = vec![];
        prost::encoding::encode_varint(n, &mut out);
        out
    };
    let mut tensor = weight("w", &[]);
    (tensor.raw_data, tensor.dims, tensor.data_type) = (None, vec![len as i64], Some(2));
    let tensor = [tensor.encode_to_vec(), vec![9 << 3 | 2], varint(len)].concat();
    let rest = graph(sum(&["x", "w"]), vec![]).encode_to_vec();
    let inside = [rest, vec![5 << 3 | 2], varint(tensor.len() as u64 + len), tensor].concat();
    let head = ModelProto { ir_version: Some(8), ..Default::default() }.encode_to_vec();
    let bytes = [head, vec![7 << 3 | 2], varint(inside.len() as u64 + len), inside].concat();
    fs::write(path, &bytes).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_len(bytes.len() as u64 + len).unwrap();
}

#[test]
fn one_file_beyond_two_gigabytes_is_read_but_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    sparse_file(&path, 1 << 31);
    let m = load(&path).unwrap();
    assert_eq!(weights(&m)[0].1.stored_bytes(), 1 << 31);
    let e = save_with(&m, &path, &options(ExternalData::Never, 1024)).unwrap_err().to_string();
    assert!(e.contains("2 GiB") && e.contains("external data"), "{e}");
    assert_eq!(names(folder.path()), ["m.onnx"]);
}

/// Writes 2 GiB: run with `--ignored`.
#[test]
#[ignore = "writes 2 GiB"]
fn a_model_that_outgrows_one_file_goes_outside_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    sparse_file(&path, 1 << 31);
    let out = folder.path().join("out.onnx");
    save(&load(&path).unwrap(), &out).unwrap();
    assert_eq!(placed(&out), pairs(&[("w", true)]));
    assert_eq!(fs::metadata(folder.path().join("out.onnx.data")).unwrap().len(), 1 << 31);
    assert!(fs::metadata(&out).unwrap().len() < 1000);
    load(&out).unwrap();
}

#[test]
fn the_options_spell_themselves() {
    assert_eq!("always".parse::<ExternalData>().unwrap(), ExternalData::Always);
    assert!("sometimes".parse::<ExternalData>().unwrap_err().to_string().contains("auto, always or never"));
}
