//! Type inference over every model of the shared folder: a valid model must never be refused, and what inference finds
//! must agree with what the file declares.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use sardonyx::analysis::shapes::infer_types;
use sardonyx::ir::{Dim, Model, Type};
use std::path::{Path, PathBuf};

fn shared(part: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(part);
    if !folder.is_dir() {
        eprintln!("skipped: {} is absent", folder.display());
        return None;
    }
    Some(folder)
}

/// The model as written, and with every declared type removed but those of its inputs.
fn both_ways(path: &Path) -> Result<(Model, Model), String> {
    let declared = sardonyx::io::load(path).map_err(|e| format!("does not load: {e}"))?;
    let bytes = std::fs::read(path).unwrap();
    let mut message: sardonyx::proto::ModelProto = prost::Message::decode(&bytes[..]).unwrap();
    let graph = message.graph.as_mut().unwrap();
    graph.value_info.clear();
    graph.output.iter_mut().for_each(|o| o.r#type = None);
    let bare = sardonyx::io::model_from_proto(message).map_err(|e| e.to_string())?;
    Ok((declared, bare))
}

/// Infers both ways; the number of outputs whose type came out of the nodes alone.
fn check(path: &Path) -> Result<(usize, usize), String> {
    let (mut declared, mut bare) = both_ways(path)?;
    infer_types(&mut declared).map_err(|e| e.to_string())?;
    infer_types(&mut bare).map_err(|e| format!("without declared types: {e}"))?;
    let outputs = bare.graph.outputs().iter();
    let found = outputs.filter(|&&v| bare.graph.ty(v).and_then(Type::shape).is_some()).count();
    Ok((found, bare.graph.outputs().len()))
}

fn models_below(folder: &Path, file: Option<&str>) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let mut paths: Vec<PathBuf> = match file {
        Some(file) => entries.map(|p| p.join(file)).filter(|p| p.is_file()).collect(),
        None => entries.filter(|p| p.extension().is_some_and(|e| e == "onnx")).collect(),
    };
    paths.sort();
    paths
}

#[test]
fn operator_cases_agree_with_their_declarations() {
    let Some(folder) = shared("onnx-node-tests") else { return };
    let paths = models_below(&folder, Some("model.onnx"));
    let (mut failures, mut found, mut outputs) = (vec![], 0, 0);
    for path in &paths {
        match check(path) {
            Ok((f, o)) => (found, outputs) = (found + f, outputs + o),
            Err(e) => failures.push(format!("{}: {e}", path.parent().unwrap().file_name().unwrap().display())),
        }
    }
    eprintln!("{} models, {found} of {outputs} output shapes inferred", paths.len());
    assert!(failures.is_empty(), "{} of {} fail:\n{}", failures.len(), paths.len(), failures.join("\n"));
    assert!(paths.len() > 1800 && found * 10 > outputs * 6, "{found} of {outputs} output shapes");
}

fn tensor_file(path: &Path) -> Option<sardonyx::proto::TensorProto> {
    let bytes = std::fs::read(path).ok()?;
    prost::Message::decode(&bytes[..]).ok()
}

/// Infers with the stored inputs as constants, so that axes, sizes and bounds are known, and compares with the stored
/// outputs. Returns how many outputs were inferred completely, and of how many.
fn check_against_data(case: &Path) -> Result<(usize, usize), String> {
    let bytes = std::fs::read(case.join("model.onnx")).unwrap();
    let mut message: sardonyx::proto::ModelProto = prost::Message::decode(&bytes[..]).unwrap();
    let graph = message.graph.as_mut().unwrap();
    let data = case.join("test_data_set_0");
    let is_tensor = |v: &sardonyx::proto::ValueInfoProto| {
        let ty = v.r#type.as_ref().and_then(|t| t.value.as_ref());
        matches!(ty, Some(sardonyx::proto::type_proto::Value::TensorType(_)))
    };
    let dense = |path: PathBuf| tensor_file(&path).filter(|t| t.data_type.is_some());
    let mut kept = vec![];
    for (k, input) in std::mem::take(&mut graph.input).into_iter().enumerate() {
        let stored = dense(data.join(format!("input_{k}.pb"))).filter(|_| is_tensor(&input));
        match stored {
            Some(t) => graph.initializer.push(sardonyx::proto::TensorProto { name: input.name.clone(), ..t }),
            None => kept.push(input),
        }
    }
    graph.input = kept;
    graph.value_info.clear();
    let tensors: Vec<bool> = graph.output.iter().map(is_tensor).collect();
    graph.output.iter_mut().for_each(|o| o.r#type = None);
    let mut model = sardonyx::io::model_from_proto(message).map_err(|e| e.to_string())?;
    infer_types(&mut model).map_err(|e| e.to_string())?;
    let mut complete = 0;
    for (k, &v) in model.graph.outputs().iter().enumerate().filter(|(k, _)| tensors[*k]) {
        let Some(stored) = dense(data.join(format!("output_{k}.pb"))) else { continue };
        let Some(found) = model.graph.ty(v).and_then(Type::as_tensor) else { continue };
        let dims: Vec<Dim> = stored.dims.iter().copied().map(Dim::Known).collect();
        let shape = found.shape.clone().unwrap_or_else(|| dims.clone());
        let fits = |(a, b): (&Dim, &Dim)| a == b || !matches!(a, Dim::Known(_));
        if found.elem.onnx() != stored.data_type() || shape.len() != dims.len() || !shape.iter().zip(&dims).all(fits) {
            let name = model.graph.name(v);
            return Err(format!("{name} is inferred as {found:?}, but is {dims:?} of type {}", stored.data_type()));
        }
        complete += usize::from(found.shape.as_ref() == Some(&dims));
    }
    Ok((complete, model.graph.outputs().len()))
}

#[test]
fn operator_cases_agree_with_their_results() {
    let Some(folder) = shared("onnx-node-tests") else { return };
    let (mut failures, mut found, mut outputs) = (vec![], 0, 0);
    for path in models_below(&folder, Some("model.onnx")) {
        match check_against_data(path.parent().unwrap()) {
            Ok((f, o)) => {
                if f < o {
                    let model = sardonyx::io::load(&path).unwrap();
                    let ops: std::collections::BTreeSet<String> =
                        model.graph.nodes().map(|id| model.graph.node(id).op.to_string()).collect();
                    eprintln!("incomplete: {} {ops:?}", path.parent().unwrap().file_name().unwrap().display());
                }
                (found, outputs) = (found + f, outputs + o);
            }
            Err(e) => failures.push(format!("{}: {e}", path.parent().unwrap().file_name().unwrap().display())),
        }
    }
    eprintln!("{found} of {outputs} output shapes inferred completely");
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
    assert!(found * 10 > outputs * 6, "{found} of {outputs} output shapes");
}

#[test]
fn real_models_agree_with_their_declarations() {
    for part in ["digits", "models"] {
        let Some(folder) = shared(part) else { continue };
        for path in models_below(&folder, None) {
            let (found, outputs) = check(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            eprintln!("{}: {found} of {outputs} output shapes", path.display());
        }
    }
}
