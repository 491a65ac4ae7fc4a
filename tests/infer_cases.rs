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
    assert!(paths.len() >= 1858 && found >= 2095, "{found} of {outputs} output shapes in {} models", paths.len());
}

fn tensor_file(path: &Path) -> Option<sardonyx::proto::TensorProto> {
    let bytes = std::fs::read(path).ok()?;
    prost::Message::decode(&bytes[..]).ok().filter(|t: &sardonyx::proto::TensorProto| t.data_type.is_some())
}

/// The model of a case with its stored inputs as constants, so that axes, sizes and bounds are known, and without
/// declared types; and which of its outputs are tensors.
fn with_constants(case: &Path) -> (sardonyx::proto::ModelProto, Vec<bool>) {
    let bytes = std::fs::read(case.join("model.onnx")).unwrap();
    let mut message: sardonyx::proto::ModelProto = prost::Message::decode(&bytes[..]).unwrap();
    let graph = message.graph.as_mut().unwrap();
    let is_tensor = |v: &sardonyx::proto::ValueInfoProto| {
        let ty = v.r#type.as_ref().and_then(|t| t.value.as_ref());
        matches!(ty, Some(sardonyx::proto::type_proto::Value::TensorType(_)))
    };
    let mut kept = vec![];
    for (k, input) in std::mem::take(&mut graph.input).into_iter().enumerate() {
        let stored = tensor_file(&case.join(format!("test_data_set_0/input_{k}.pb"))).filter(|_| is_tensor(&input));
        match stored {
            Some(t) => graph.initializer.push(sardonyx::proto::TensorProto { name: input.name.clone(), ..t }),
            None => kept.push(input),
        }
    }
    graph.input = kept;
    graph.value_info.clear();
    let tensors = graph.output.iter().map(is_tensor).collect();
    graph.output.iter_mut().for_each(|o| o.r#type = None);
    (message, tensors)
}

/// Infers with constant inputs and compares with the stored outputs. Returns how many outputs were inferred completely,
/// and of how many.
fn check_against_data(case: &Path) -> Result<(usize, usize), String> {
    let (message, tensors) = with_constants(case);
    let mut model = sardonyx::io::model_from_proto(message).map_err(|e| e.to_string())?;
    infer_types(&mut model).map_err(|e| e.to_string())?;
    let mut complete = 0;
    for (k, &v) in model.graph.outputs().iter().enumerate().filter(|(k, _)| tensors[*k]) {
        let Some(stored) = tensor_file(&case.join(format!("test_data_set_0/output_{k}.pb"))) else { continue };
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
    // Operators that a case has alone: whether every output of every such case was inferred completely.
    let mut complete = std::collections::BTreeMap::<String, bool>::new();
    for path in models_below(&folder, Some("model.onnx")) {
        let case = path.parent().unwrap();
        match check_against_data(case) {
            Ok((f, o)) => {
                (found, outputs) = (found + f, outputs + o);
                let model = sardonyx::io::load(&path).unwrap();
                let ops: Vec<_> = model.graph.nodes().map(|id| model.graph.node(id).op.to_string()).collect();
                if let [op] = &ops[..] {
                    *complete.entry(op.clone()).or_insert(true) &= f == o;
                }
            }
            Err(e) => failures.push(format!("{}: {e}", case.file_name().unwrap().display())),
        }
    }
    let rest: Vec<&String> = complete.iter().filter(|(_, yes)| !**yes).map(|(op, _)| op).collect();
    let whole = complete.len() - rest.len();
    eprintln!("{found} of {outputs} output shapes inferred completely");
    eprintln!("{whole} of {} operators in every case; the others: {rest:?}", complete.len());
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
    assert!(found >= 2049, "{found} of {outputs} output shapes");
    assert!(whole >= 172, "{whole} operators");
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

/// A small deterministic generator (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }

    fn hostile_int(&mut self) -> i64 {
        const INTS: [i64; 14] =
            [i64::MIN, i64::MIN + 1, -1 << 40, -7, -2, -1, 0, 1, 2, 3, 1 << 31, 1 << 40, i64::MAX - 1, i64::MAX];
        INTS[self.below(INTS.len())]
    }
}

/// Breaks one thing: an attribute, a declared dimension, a constant, or which inputs a node has.
fn mutate(message: &mut sardonyx::proto::ModelProto, random: &mut Random) {
    use sardonyx::proto::{tensor_shape_proto::dimension::Value as DimValue, type_proto::Value as TypeValue};
    let graph = message.graph.as_mut().unwrap();
    let node_at = random.below(graph.node.len());
    let (kind, hostile) = (random.below(6), random.hostile_int());
    match kind {
        0 | 1 => {
            let Some(node) = graph.node.get_mut(node_at) else { return };
            let at = random.below(node.attribute.len());
            let Some(attribute) = node.attribute.get_mut(at) else { return };
            match random.below(4) {
                0 if attribute.i.is_some() => attribute.i = Some(hostile),
                0 | 1 if !attribute.ints.is_empty() => {
                    let k = random.below(attribute.ints.len());
                    attribute.ints[k] = hostile;
                }
                2 => attribute.ints.truncate(1),
                3 if attribute.s.is_some() => attribute.s = Some(vec![0xff, 0xfe]),
                _ => drop(node.attribute.remove(at)),
            }
        }
        2 => {
            let at = random.below(graph.input.len());
            let Some(input) = graph.input.get_mut(at) else { return };
            let Some(TypeValue::TensorType(t)) = input.r#type.as_mut().and_then(|t| t.value.as_mut()) else { return };
            let Some(shape) = &mut t.shape else { return };
            let k = random.below(shape.dim.len());
            match random.below(3) {
                0 => drop(shape.dim.pop()),
                1 => shape.dim.push(Default::default()),
                _ => shape.dim.iter_mut().skip(k).take(1).for_each(|d| d.value = Some(DimValue::DimValue(hostile))),
            }
        }
        3 => {
            let Some(node) = graph.node.get_mut(node_at) else { return };
            let at = random.below(node.input.len());
            match random.below(3) {
                0 => drop(node.input.pop()),
                1 => node.input.iter_mut().skip(at).take(1).for_each(String::clear),
                _ => node.output.push("another".into()),
            }
        }
        4 => {
            let small = |t: &&mut sardonyx::proto::TensorProto| t.data_type == Some(7) && t.raw_data.is_some();
            for t in graph.initializer.iter_mut().filter(small).take(3) {
                let n = t.raw_data.as_ref().map_or(0, |d| d.len() / 8);
                t.raw_data = Some((0..n).flat_map(|_| random.hostile_int().to_le_bytes()).collect::<Vec<u8>>().into());
            }
        }
        _ => {
            let versions = [1, 5, 6, 7, 9, 10, 11, 12, 13, 18, 21];
            let version = versions[random.below(versions.len())];
            message.opset_import.iter_mut().for_each(|o| o.version = Some(version));
        }
    }
}

#[test]
fn hostile_models_are_refused_without_a_panic() {
    let Some(folder) = shared("onnx-node-tests") else { return };
    let (mut random, mut refused, mut accepted) = (Random(0x9e37_79b9_7f4a_7c15), 0, 0);
    for path in models_below(&folder, Some("model.onnx")) {
        let constant = with_constants(path.parent().unwrap()).0;
        for round in 0..24 {
            let mut message = constant.clone();
            (0..=round % 3).for_each(|_| mutate(&mut message, &mut random));
            let Ok(mut model) = sardonyx::io::model_from_proto(message) else { continue };
            match infer_types(&mut model) {
                Ok(()) => accepted += 1,
                Err(e) => {
                    refused += 1;
                    assert!(!e.to_string().contains('\n'), "not one line: {e}");
                }
            }
            let _ = sardonyx::analysis::cost::cost(&model);
            let contexts = sardonyx::analysis::shapes::Contexts::new(&model, &model.graph);
            for id in model.graph.nodes() {
                let _ = sardonyx::ops::spec(&model.graph.node(id).op).map(|s| s.quant(&contexts.of(id)));
            }
            let _ = sardonyx::analysis::opset::require(&mut model, 21);
        }
    }
    assert!(refused > 1000 && accepted > 1000, "{refused} refused, {accepted} accepted");
}

/// Operators of the cases without a file: newer than [`sardonyx::ir::NEWEST_OPSET`], or previews.
const BEYOND: &[&str] = &["CausalConvWithState", "FlexAttention", "Gradient", "LinearAttention", "SwiGLU"];

#[test]
fn every_operator_of_the_cases_has_a_file() {
    let Some(folder) = shared("onnx-node-tests") else { return };
    let mut missing = std::collections::BTreeSet::new();
    for path in models_below(&folder, Some("model.onnx")) {
        let model = sardonyx::io::load(&path).unwrap();
        for id in model.graph.nodes() {
            let op = &model.graph.node(id).op;
            if sardonyx::ops::spec(op).is_none() {
                missing.insert(op.op_type.to_string());
            }
        }
    }
    missing.retain(|op| !BEYOND.contains(&op.as_str()));
    assert!(missing.is_empty(), "without a file: {missing:?}");
}
