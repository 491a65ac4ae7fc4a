//! What is fuzzed: each function takes arbitrary bytes and panics where the library breaks a promise.
//!
//! `tests/fuzz_corpus.rs` replays the corpus through the same functions.

use crate::graphs::generate;
use crate::judge::judge;
use prost::Message;
use sardonyx::analysis::shapes;
use sardonyx::io::text::{parse_model, print_model};
use sardonyx::io::{decode_model, load_external, model_to_proto};
use sardonyx::ir::{Graph, Model};
use sardonyx::passes::manager;
use sardonyx::passes::simplify::simplify as rules;
use sardonyx::passes::{Pass, PassContext};
use sardonyx::runtime::RuntimeEvaluator;
use std::path::Path;
use std::sync::OnceLock;

/// Constants that folding may make: small, so that time goes into many inputs.
const FOLD_LIMIT: usize = 1 << 16;

fn encode(model: &Model) -> Vec<u8> {
    model_to_proto(model).unwrap_or_else(|e| panic!("a verified model is not encoded: {e}")).encode_to_vec()
}

/// A folder with one small file, `w.bin`, for external data.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("no temporary folder: {e}"));
        std::fs::write(folder.path().join("w.bin"), [0x3f; 64]).unwrap_or_else(|e| panic!("{e}"));
        folder
    };
    FOLDER.get_or_init(make).path()
}

/// What is decoded and verified is encoded to what decodes to an equal model.
pub fn decode(data: &[u8]) {
    let Ok(mut model) = decode_model(data.to_vec().into()) else { return };
    let external = load_external(&mut model, folder()).is_ok();
    if model.verify().is_err() {
        return;
    }
    let bytes = encode(&model);
    let mut again = decode_model(bytes.clone().into()).unwrap_or_else(|e| panic!("what was encoded is refused: {e}"));
    assert_eq!(load_external(&mut again, folder()).is_ok(), external, "external data");
    again.verify().unwrap_or_else(|e| panic!("what was encoded is not valid: {e}"));
    assert!(encode(&again) == bytes, "encoded twice, it differs");
}

/// What the verifier accepts can be ordered, inferred, printed and encoded, and stays valid by it.
pub fn verify(data: &[u8]) {
    let Some(mut model) = read(data) else { return };
    if model.verify().is_err() {
        return;
    }
    model.graph.order().unwrap_or_else(|e| panic!("a verified graph has no order: {e}"));
    // The text syntax has no words for some models.
    if let Ok(text) = print_model(&model) {
        parse_model(&text).unwrap_or_else(|e| panic!("what was printed is refused: {e}\n{text}"));
    }
    if shapes::infer_types(&mut model).is_ok() {
        model.verify().unwrap_or_else(|e| panic!("inference makes it invalid: {e}"));
    }
    let bytes = encode(&model);
    let again = decode_model(bytes.into()).unwrap_or_else(|e| panic!("what was encoded is refused: {e}"));
    again.verify().unwrap_or_else(|e| panic!("what was encoded is not valid: {e}"));
}

/// What is printed parses to a model that prints the same; printed once, nothing more is lost.
pub fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(model) = parse_model(text) else { return };
    let printed = match print_model(&model) {
        Ok(printed) => printed,
        Err(e) => return assert!(model.verify().is_err(), "a verified model is not printed: {e}"),
    };
    let parse = |text: &str| parse_model(text).unwrap_or_else(|e| panic!("what was printed is refused: {e}\n{text}"));
    let again = parse(&printed);
    assert_eq!(model.verify().is_ok(), again.verify().is_ok(), "printing makes it valid or invalid:\n{printed}");
    let twice = print_model(&again).unwrap_or_else(|e| panic!("it is not printed again: {e}\n{printed}"));
    assert_eq!(printed, twice, "what was printed means something else");
    let bytes = |model: &Model| model_to_proto(model).map(|m| m.encode_to_vec()).ok();
    assert!(bytes(&again) == bytes(&parse(&twice)), "what was printed means something else:\n{printed}");
}

/// A model as protobuf or as text.
fn read(data: &[u8]) -> Option<Model> {
    match std::str::from_utf8(data).ok().and_then(|text| parse_model(text).ok()) {
        Some(model) => Some(model),
        None => decode_model(data.to_vec().into()).ok(),
    }
}

/// The whole pipeline: whatever it is given, the result is valid and has the interface of the original.
pub fn simplify(data: &[u8]) {
    let Some(mut model) = read(data) else { return };
    if model.verify().is_err() {
        return;
    }
    let interface = interface(&model.graph);
    let pass = rules(&RuntimeEvaluator, FOLD_LIMIT);
    let passes: [&dyn Pass; 1] = [&pass];
    if manager::run(&mut model, &passes, &PassContext::default(), None).is_err() {
        return;
    }
    model.verify().unwrap_or_else(|e| panic!("simplification makes it invalid: {e}"));
    assert_eq!(interface, self::interface(&model.graph), "simplification changes the interface");
    let again = decode_model(encode(&model).into()).unwrap_or_else(|e| panic!("the result is refused: {e}"));
    again.verify().unwrap_or_else(|e| panic!("the encoded result is not valid: {e}"));
}

/// Names of inputs and outputs, in order.
fn interface(graph: &Graph) -> [Vec<String>; 2] {
    [graph.inputs(), graph.outputs()].map(|values| values.iter().map(|&v| graph.name(v).to_string()).collect())
}

/// Random graphs, of which the bytes are the choices, executed before and after.
pub fn graphs(data: &[u8]) {
    judge(&generate(data));
}
