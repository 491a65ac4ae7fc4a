//! Files that are broken or hostile: each one is an error of one line, and leaves no file behind.

use prost::Message;
use sardonyx::io::{load, model_to_proto, save};
use sardonyx::ir::{AttributeValue, Tensor};
use sardonyx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto,
    attribute_proto::AttributeType, tensor_proto::DataLocation,
};
use std::fs;
use std::path::{Path, PathBuf};

fn info(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.into()), ..Default::default() }
}

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: Some(op.into()),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: outputs.iter().map(|s| s.to_string()).collect(),
        ..Default::default()
    }
}

fn graph(nodes: Vec<NodeProto>) -> GraphProto {
    GraphProto { node: nodes, input: vec![info("x")], output: vec![info("y")], ..Default::default() }
}

fn model(graph: GraphProto) -> ModelProto {
    ModelProto { ir_version: Some(8), graph: Some(graph), ..Default::default() }
}

fn body(g: GraphProto) -> AttributeProto {
    let (name, ty) = (Some("body".into()), Some(AttributeType::Graph as i32));
    AttributeProto { name, r#type: ty, g: Some(g), ..Default::default() }
}

/// Two floats at `offset` of the file `location`.
fn external(name: &str, location: &str, offset: &str, length: &str) -> TensorProto {
    let entry = |k: &str, v: &str| StringStringEntryProto { key: Some(k.into()), value: Some(v.into()) };
    TensorProto {
        name: Some(name.into()),
        dims: vec![2],
        data_type: Some(1),
        data_location: Some(DataLocation::External as i32),
        external_data: vec![entry("location", location), entry("offset", offset), entry("length", length)],
        ..Default::default()
    }
}

fn with_external(location: &str, offset: &str, length: &str) -> ModelProto {
    let mut g = graph(vec![node("Add", &["x", "w"], &["y"])]);
    g.initializer = vec![external("w", location, offset, length)];
    model(g)
}

fn write(folder: &Path, bytes: &[u8]) -> PathBuf {
    let path = folder.join("m.onnx");
    fs::write(&path, bytes).unwrap();
    path
}

/// Loads the bytes as a file of `folder`; the error, which must be one line that names the file.
fn refused(folder: &Path, bytes: &[u8]) -> String {
    let e = load(&write(folder, bytes)).unwrap_err().to_string();
    assert!(e.contains("m.onnx") && !e.contains('\n'), "{e:?}");
    e
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn files_that_are_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    assert!(refused(dir, b"").contains("empty"));
    refused(dir, b"<html><body>404</body></html>\n");
    refused(dir, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n");
    refused(dir, &[0xff; 1000]);
    assert!(
        refused(dir, &ModelProto { ir_version: Some(8), ..Default::default() }.encode_to_vec()).contains("no graph")
    );
    let mut g = graph(vec![node("Add", &["x", "w"], &["y"])]);
    let raw = Some(vec![0u8; 400].into());
    g.initializer = vec![TensorProto {
        name: Some("w".into()),
        dims: vec![100],
        data_type: Some(1),
        raw_data: raw,
        ..Default::default()
    }];
    let whole = model(g).encode_to_vec();
    load(&write(dir, &whole)).unwrap();
    for end in 3..whole.len() {
        refused(dir, &whole[..end]);
    }
    let e = load(&dir.join("absent.onnx")).unwrap_err().to_string();
    assert!(e.contains("absent.onnx"), "{e}");
    let e = load(dir).unwrap_err().to_string();
    assert!(e.contains("it is a folder"), "{e}");
}

#[test]
fn graphs_that_break_the_rules() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |g: GraphProto, want: &str| {
        let e = refused(folder.path(), &model(g).encode_to_vec());
        assert!(e.contains(want), "{e}");
    };
    refused(graph(vec![node("Relu", &["x"], &["y"]), node("Relu", &["x"], &["y"])]), "duplicate value name \"y\"");
    refused(graph(vec![node("Relu", &["x"], &["x"])]), "duplicate value name \"x\"");
    refused(graph(vec![node("Relu", &["x"], &["y", "y"])]), "duplicate value name \"y\"");
    refused(
        graph(vec![node("Add", &["x", "b"], &["a"]), node("Relu", &["a"], &["b"]), node("Relu", &["b"], &["y"])]),
        "cycle",
    );
    refused(graph(vec![node("Relu", &["z"], &["y"])]), "nothing produces \"z\"");
    refused(graph(vec![]), "nothing produces \"y\", a graph output");
    refused(graph(vec![node("", &["x"], &["y"])]), "op_type");
    let mut g = graph(vec![node("Relu", &["x"], &["y"])]);
    g.input.push(info("x"));
    refused(g, "two graph inputs");
    let bad = |dims: Vec<i64>, code: i32, data: usize, want: &str| {
        let mut g = graph(vec![node("Add", &["x", "w"], &["y"])]);
        let raw_data = Some(vec![0u8; data].into());
        let t = TensorProto { name: Some("w".into()), dims, data_type: Some(code), raw_data, ..Default::default() };
        g.initializer = vec![t];
        refused(g, want);
    };
    bad(vec![2], 1, 7, "has 7 bytes");
    bad(vec![-1], 1, 4, "negative");
    bad(vec![i64::MAX, i64::MAX], 1, 4, "overflows");
    bad(vec![1], 99, 4, "unknown element type 99");
}

#[test]
fn external_data_stay_inside_the_folder() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("model");
    fs::create_dir(&dir).unwrap();
    let secret = outer.path().join("secret");
    fs::write(&secret, [0u8; 64]).unwrap();
    fs::write(dir.join("w.bin"), [0u8; 16]).unwrap();
    let refused = |m: ModelProto, want: &str| {
        let e = refused(&dir, &m.encode_to_vec());
        assert!(e.contains(want) && e.contains("\"w\""), "{e}");
    };
    load(&write(&dir, &with_external("w.bin", "8", "8").encode_to_vec())).unwrap();
    refused(with_external("none.bin", "0", "8"), "none.bin");
    refused(with_external("../secret", "0", "8"), "leaves the model's folder");
    refused(with_external("a/../../secret", "0", "8"), "leaves the model's folder");
    refused(with_external(secret.to_str().unwrap(), "0", "8"), "leaves the model's folder");
    refused(with_external("", "0", "8"), "leaves the model's folder");
    refused(with_external(".", "0", "8"), "not a regular file");
    refused(with_external("w.bin", "9", "8"), "beyond the end");
    refused(with_external("w.bin", "18446744073709551615", "8"), "beyond the end");
    refused(with_external("w.bin", "-1", "8"), "offset is not a number");
    refused(with_external("w.bin", "0", "12"), "does not match");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&secret, dir.join("soft")).unwrap();
        std::os::unix::fs::symlink(outer.path(), dir.join("folder")).unwrap();
        fs::hard_link(&secret, dir.join("hard")).unwrap();
        refused(with_external("soft", "0", "8"), "symbolic link");
        refused(with_external("folder/secret", "0", "8"), "symbolic link");
        refused(with_external("hard", "0", "8"), "hard link");
    }
}

#[test]
fn saving_fails_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    fs::write(dir.join("w.bin"), [1u8; 8]).unwrap();
    let m = load(&write(dir, &with_external("w.bin", "0", "8").encode_to_vec())).unwrap();
    let target = dir.join("target");
    fs::create_dir(&target).unwrap();
    let before = names(dir);
    let fails = |path: &Path| {
        let e = save(&m, path).unwrap_err().to_string();
        assert!(e.contains("cannot write") && e.contains(path.to_str().unwrap()) && !e.contains('\n'), "{e}");
        assert_eq!(names(dir), before);
    };
    fails(&target);
    fails(&dir.join("absent/out.onnx"));
    fails(&dir.join("w.bin/out.onnx"));
    fails(Path::new("/"));
    fs::create_dir(dir.join("out.onnx.data")).unwrap();
    save(&m, &dir.join("out.onnx")).unwrap_err();
    assert!(!dir.join("out.onnx").exists());
}

#[test]
fn a_model_is_saved_over_itself() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let data: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    fs::write(dir.join("m.onnx.data"), [&[0; 8], &data[..]].concat()).unwrap();
    let path = write(dir, &with_external("m.onnx.data", "8", "8").encode_to_vec());
    for _ in 0..2 {
        let m = load(&path).unwrap();
        save(&m, &path).unwrap();
        assert_eq!(names(dir), ["m.onnx", "m.onnx.data"]);
        let w = m.graph.find("w").unwrap();
        let want = Tensor::from_f32(&[2], &[1.5, -2.0]);
        assert_eq!(m.graph.value(w).init.as_ref(), Some(&want), "the loaded model still sees the old file");
        let again = load(&path).unwrap();
        assert_eq!(again.graph.value(again.graph.find("w").unwrap()).init.as_ref(), Some(&want));
    }
    assert_eq!(fs::metadata(dir.join("m.onnx.data")).unwrap().len(), 8);
}

/// External tensors in every place where a tensor can be, saved to another folder, from which the first one is gone.
#[test]
fn external_data_anywhere_survive_saving() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data: Vec<u8> = [3.0f32, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    fs::write(from.path().join("w.bin"), &data).unwrap();
    let constant = || {
        let mut n = node("Constant", &[], &["c"]);
        let (name, ty) = (Some("value".into()), Some(AttributeType::Tensor as i32));
        n.attribute.push(AttributeProto {
            name,
            r#type: ty,
            t: Some(external("", "w.bin", "0", "8")),
            ..Default::default()
        });
        n
    };
    let mut inner = graph(vec![constant(), node("Sum", &["x", "c", "w", "inner"], &["y"])]);
    inner.initializer = vec![external("inner", "w.bin", "0", "8")];
    inner.input.clear();
    let mut looping = node("If", &["x"], &["y"]);
    looping.attribute.push(body(inner));
    let mut g = graph(vec![looping]);
    g.initializer = vec![external("w", "w.bin", "0", "8")];
    let mut m = model(g);
    let mut function = sardonyx::proto::FunctionProto { name: Some("F".into()), ..Default::default() };
    function.node.push(constant());
    m.functions.push(function);
    let m = load(&write(from.path(), &m.encode_to_vec())).unwrap();
    let target = to.path().join("out.onnx");
    save(&m, &target).unwrap();
    drop(from);
    assert_eq!(fs::metadata(to.path().join("out.onnx.data")).unwrap().len(), 8, "equal data are stored once");

    let m = load(&target).unwrap();
    let want = Tensor::from_f32(&[2], &[3.0, 4.0]);
    let init = |g: &sardonyx::ir::Graph, name: &str| g.value(g.find(name).unwrap()).init.clone().unwrap();
    assert_eq!(init(&m.graph, "w"), want);
    let owner = m.graph.nodes().next().unwrap();
    let inner = m.graph.node(owner).bodies().next().unwrap();
    assert_eq!(init(inner, "inner"), want);
    let values = inner.nodes().filter_map(|n| inner.node(n).attribute("value"));
    let values: Vec<_> = values.filter(|v| matches!(v, AttributeValue::Tensor(t) if *t == want)).collect();
    assert_eq!(values.len(), 1);
    let message = model_to_proto(&m).unwrap();
    assert_eq!(message.functions[0].node[0].attribute[0].t.as_ref().unwrap().raw_data(), &data);
}

/// A model with `depth` bodies inside each other, written without recursion.
fn nested(depth: usize) -> Vec<u8> {
    let mut g = graph(vec![node("Relu", &["x"], &["y"])]);
    g.input.clear();
    let mut inner = g.encode_to_vec();
    let wrap = |tag: u8, inner: &[u8], more: &[u8]| {
        let mut out = vec![tag];
        prost::encoding::encode_varint(inner.len() as u64, &mut out);
        out.extend(inner);
        out.extend(more);
        out
    };
    let owner = node("If", &["x"], &["y"]).encode_to_vec();
    let kind = AttributeProto { r#type: Some(AttributeType::Graph as i32), ..Default::default() }.encode_to_vec();
    let output = GraphProto { output: vec![info("y")], ..Default::default() }.encode_to_vec();
    for _ in 0..depth {
        let attribute = wrap(6 << 3 | 2, &inner, &kind);
        let node = wrap(5 << 3 | 2, &attribute, &owner);
        inner = wrap(1 << 3 | 2, &node, &output);
    }
    let input = GraphProto { input: vec![info("x")], ..Default::default() }.encode_to_vec();
    wrap(7 << 3 | 2, &[inner, input].concat(), &[])
}

#[test]
fn deep_nesting_is_decoded_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &nested(64));
    let m = load(&path).unwrap();
    save(&m, &path).unwrap();
    load(&path).unwrap();
    assert!(refused(folder.path(), &nested(200)).contains("nested deeper"));
    assert!(refused(folder.path(), &nested(20_000)).contains("nested deeper"));
    assert!(refused(folder.path(), &[0x7b; 1_000_000]).contains("groups"));
}
