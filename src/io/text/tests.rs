#![allow(clippy::print_stderr)] // a skipped test says why

use super::parse::model_proto;
use super::*;
use crate::io::{decode_model, model_to_proto};
use crate::ir::DType;
use crate::proto::{AttributeProto, GraphProto, ModelProto, NodeProto};
use prost::Message;
use std::path::Path;

/// Every production of the grammar that onnx.parser accepts; `syntax.onnx` is what onnx.parser (ONNX 1.23) makes of it.
const SYNTAX: &str = include_str!("../../../fixtures/text/syntax.txt");
const REFERENCE: &[u8] = include_bytes!("../../../fixtures/text/syntax.onnx");

/// Drops empty strings that onnx.parser writes out, or that printing leaves away.
fn normalize(m: &mut ModelProto) {
    fn attribute(a: &mut AttributeProto) {
        a.t.iter_mut().for_each(|t| t.name = t.name.take().filter(|n| !n.is_empty()));
        a.g.iter_mut().for_each(graph);
    }
    fn node(n: &mut NodeProto) {
        n.domain = n.domain.take().filter(|d| !d.is_empty());
        n.name = n.name.take().filter(|n| !n.is_empty());
        n.attribute.iter_mut().for_each(attribute);
    }
    fn graph(g: &mut GraphProto) {
        g.node.iter_mut().for_each(node);
    }
    m.graph.iter_mut().for_each(graph);
    m.functions.iter_mut().flat_map(|f| &mut f.node).for_each(node);
}

#[test]
fn the_whole_grammar_is_read_as_onnx_reads_it() {
    let mut ours = model_proto(SYNTAX).unwrap();
    normalize(&mut ours);
    let mut theirs = ModelProto::decode(REFERENCE).unwrap();
    normalize(&mut theirs);
    assert_eq!(format!("{ours:#?}"), format!("{theirs:#?}"));
}

#[test]
fn printing_is_stable_and_loses_nothing() {
    let first = parse_model(SYNTAX).unwrap();
    let text = print_model(&first).unwrap();
    let second = parse_model(&text).unwrap();
    assert_eq!(print_model(&second).unwrap(), text);
    let [a, b] = [&first, &second].map(|m| {
        let mut message = model_to_proto(m).unwrap();
        normalize(&mut message);
        format!("{message:#?}")
    });
    assert_eq!(a, b);
}

#[test]
fn the_form_that_snapshots_rely_on() {
    let text = r#"<
    ir_version: 10,
    opset_import: ["" : 17, "com.microsoft" : 1]
>
g (float[N,3] x) => (float[N,2] "y/out")
<   float[3,2] w = {1.0,2.5,-3.0,1e-10,inf,NaN},
    float[N,2] h>
{
    [first] h = MatMul (x, w)
    t, "" = com.microsoft.Op <axes: ints = [1, -1], scale: float = 0.5> (h, "", w)
    "y/out" = If (t) <then_branch: graph = a () => (float[N,2] r)
    {
        r = Relu (h)
    }, else_branch: graph = b () => (float[N,2] s)
    <   float s0 = {0.0}>
    {
        s = Add (h, s0)
    }>
}
"#;
    let model = parse_model(text).unwrap();
    model.verify().unwrap();
    assert_eq!(print_model(&model).unwrap(), text);
    let short = print_model_with(&model, Some(2)).unwrap();
    assert!(short.contains("float[3,2] w = {1.0,2.5 # and 4 more\n}"), "{short}");
}

#[test]
fn a_graph_without_header() {
    let m = parse_graph("g (float[2] x) => (float[2] y) { y = com.microsoft.Gelu(x) }", 17).unwrap();
    assert_eq!((m.default_opset(), m.opset("com.microsoft"), m.ir_version()), (17, Some(1), 10));
    m.verify().unwrap();
}

#[test]
fn half_floats_are_bit_patterns_or_values() {
    let m = parse_graph("g () => (y) <float16[2] h = {15360, 1.5}, bfloat16 b = {-2.0}> { y = F(h, b) }", 17).unwrap();
    let init = |name: &str| m.graph.value(m.graph.find(name).unwrap()).init.clone().unwrap();
    assert_eq!(init("h").to_f32().unwrap(), [1.0, 1.5]);
    assert_eq!(init("b").to_f32().unwrap(), [-2.0]);
}

#[test]
fn lists_of_tensors_bodies_and_types_and_odd_names_round_trip() {
    let text = r#"g (float x) => ("a b") {
        "a b" = "my-domain".Op <ts = [float[1] {1}, int64 n = {2}], gs = [a () => (p) { p = X() }, "" () => (q) { q = "nan"() }],
            tys = [float[2], seq(float)], "odd name" = 1, empty: graphs = []> (x, "float")
    }"#;
    let m = parse_model(text).unwrap();
    let printed = print_model(&m).unwrap();
    let again = parse_model(&printed).unwrap();
    assert_eq!(model_to_proto(&again).unwrap(), model_to_proto(&m).unwrap());
    let n = m.graph.nodes().next().unwrap();
    assert_eq!((&*m.graph.node(n).op.domain, m.graph.node(n).bodies().count()), ("my-domain", 2));
}

#[test]
fn packed_elements_are_bytes() {
    let m = parse_graph("g () => (y) <int4[3] w = {33, 3}> { y = F(w) }", 21).unwrap();
    let w = m.graph.value(m.graph.find("w").unwrap()).init.clone().unwrap();
    assert_eq!((w.dtype, w.bytes().unwrap().as_ref()), (DType::I4, &[33u8, 3][..]));
    assert_eq!(print_model(&parse_model(&print_model(&m).unwrap()).unwrap()).unwrap(), print_model(&m).unwrap());
}

#[test]
fn errors_say_where() {
    let cases = [
        ("", "line 1, column 1: expected the name of the graph, found the end of the line"),
        ("g (float x] => (y) {}", "line 1, column 11: expected \")\", found \"] => (y) {}\""),
        ("g (x) => (y) {\n  y = Relu x)\n}", "line 2, column 12: expected \"(\", found \"x)\""),
        ("g (x) => (y) {\n  # ü\n  \u{fc} }", "line 3, column 3: expected \"=\""),
        ("g (x) => (y) <float[2] w = {1,2,3}> {}", "column 28: 3 values for shape [2], which takes 2"),
        ("g (x) => (y) <float[N] w = {1}> {}", "a tensor literal needs a shape of numbers"),
        ("g (x) => (y) <float[] w = {1}> {}", "a tensor literal needs a shape of numbers"),
        ("g (x) => (y) <w = {1}> {}", "needs a tensor type"),
        ("g (x) => (y) <int8 w = {128}> {}", "column 25: expected an integer in the range"),
        ("g (x) => (y) <int64 w = {1.5}> {}", "expected an integer"),
        ("g (x) => (y) <float w = {1e99}> {}", "expected a number in the range"),
        ("g (x) => (y) <float[9223372036854775807,9] w = {1}> {}", "more than fit in memory"),
        ("g (x) => (y) { y = F <a = []> (x) }", "an empty list needs a type"),
        ("g (x) => (y) { y = F <a = [1, 2.5]> (x) }", "a value of type float where int is expected, found \"2.5]"),
        ("g (x) => (y) { y = F <a: ints = 1> (x) }", "a value of type int where ints is expected"),
        ("g (x) => (y) { y = F <a: int = [1]> (x) }", "a list where type int is declared"),
        ("g (x) => (y) { y = F <a: thing = 1> (x) }", "unknown attribute type"),
        ("g (x) => (y) { y = F <a = \"no end> (x) }", "no end"),
        ("<ir_version: 8, colour: 3> g () => () {}", "line 1, column 17: unknown field of the model"),
        ("g (x) => (y) { y = F(x) } trailing", "expected \"(\", found the end of the line"),
        ("g (x) => (x) { x = F(x) }", "duplicate value name \"x\""),
    ];
    for (text, want) in cases {
        let e = parse_model(text).unwrap_err().to_string();
        assert!(e.contains(want) && !e.contains('\n'), "{text:?}: {e}");
    }
    let deep = format!("g ({}float{} x) => () {{}}", "seq(".repeat(100_000), ")".repeat(100_000));
    assert!(parse_model(&deep).unwrap_err().to_string().contains("nested deeper"));
}

/// No prefix and no damaged copy of a text makes the parser panic.
#[test]
fn damaged_texts_are_errors_not_panics() {
    for end in (0..SYNTAX.len()).filter(|&e| SYNTAX.is_char_boundary(e)) {
        let _ = parse_model(&SYNTAX[..end]);
        let mut bytes = SYNTAX.as_bytes().to_vec();
        bytes[end] = b"\"{}[]()<>,:=@-.e0#"[end % 18];
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let _ = parse_model(text);
        }
    }
}

/// Real models survive printing and parsing.
#[test]
fn real_models_round_trip() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/onnx-node-tests");
    let Ok(folders) = std::fs::read_dir(&shared) else {
        eprintln!("skipped: {} is absent", shared.display());
        return;
    };
    let (mut count, mut refused) = (0, vec![]);
    for folder in folders {
        let path = folder.unwrap().path().join("model.onnx");
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let model = decode_model(bytes.into()).unwrap();
        let text = match print_model(&model) {
            Ok(text) => text,
            Err(e) => {
                refused.push(format!("{}: {e}", path.display()));
                continue;
            }
        };
        let again = parse_model(&text).unwrap_or_else(|e| panic!("{}: {e}\n{text}", path.display()));
        assert_eq!(print_model(&again).unwrap(), text, "{}", path.display());
        count += 1;
    }
    eprintln!("{count} models; refused: {refused:#?}");
    assert!(count > 1000 && refused.len() < 30);
}
