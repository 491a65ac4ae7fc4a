//! The ONNX standard's operator cases: whatever is not refused must be right.

use prost::Message;
use rayon::prelude::*;
use sardonyx::io::{Feed, load, tensor_from_proto};
use sardonyx::ir::{DType, Tensor};
use sardonyx::proto::TensorProto;
use sardonyx::runtime::{Runner, RunnerOptions};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

enum Verdict {
    Right,
    Refused(String),
    Wrong(String),
    NotJudged,
}

#[test]
fn whatever_is_not_refused_is_right() {
    // Other cases in the same layout, such as random ones that ONNX Runtime answered.
    let elsewhere = std::env::var_os("NODE_CASES_ROOT");
    let standard = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/onnx-node-tests");
    let root = elsewhere.as_ref().map_or(standard, PathBuf::from);
    let Ok(folder) = std::fs::read_dir(&root) else {
        eprintln!("skipped: {} is absent", root.display());
        return;
    };
    let mut cases: Vec<PathBuf> = folder.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    cases.sort();
    let tolerances: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&std::fs::read(root.join("tolerances.json")).unwrap()).unwrap();
    let verdicts: Vec<(String, Verdict)> = cases
        .par_iter()
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let tolerance = |key: &str| tolerances.get(&name).and_then(|t| t[key].as_f64()).unwrap_or_default();
            let verdict = judge(path, tolerance("rtol").max(1e-3), tolerance("atol").max(1e-5));
            (name, verdict)
        })
        .collect();
    let mut counts = [0usize; 4];
    let mut wrong = vec![];
    for (name, verdict) in &verdicts {
        match verdict {
            Verdict::Right => counts[0] += 1,
            Verdict::Refused(why) => {
                counts[1] += 1;
                if std::env::var_os("NODE_CASES_VERBOSE").is_some() {
                    eprintln!("refused {name}: {why}");
                }
            }
            Verdict::Wrong(why) => {
                counts[2] += 1;
                wrong.push(format!("{name}: {why}"));
            }
            Verdict::NotJudged => counts[3] += 1,
        }
    }
    eprintln!("right {}, refused {}, wrong {}, not judged {}", counts[0], counts[1], counts[2], counts[3]);
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(elsewhere.is_some() || counts[0] >= LEAST_RIGHT, "only {} cases run, {LEAST_RIGHT} did", counts[0]);
}

/// A referee that refuses everything is no referee.
const LEAST_RIGHT: usize = 1_585;

fn judge(case: &Path, rtol: f64, atol: f64) -> Verdict {
    let data = case.join("test_data_set_0");
    let (Some(inputs), Some(outputs)) = (tensors(&data, "input"), tensors(&data, "output")) else {
        return Verdict::NotJudged; // sequences and optionals
    };
    if inputs.iter().chain(&outputs).any(|t| t.dtype == DType::String) {
        return Verdict::NotJudged;
    }
    let model = match load(&case.join("model.onnx")) {
        Ok(model) => model,
        Err(e) => return Verdict::Refused(e.to_string()),
    };
    let names = model.graph.required_inputs().map(|v| model.graph.name(v).to_string());
    let feed: Feed = names.zip(inputs).collect();
    let run = Runner::new(&model, &RunnerOptions::default()).and_then(|r| r.run(&feed));
    let got = match run {
        Ok(got) => got,
        Err(e) => return Verdict::Refused(e.to_string()),
    };
    for (got, want) in got.iter().zip(&outputs) {
        let got = got.to_tensor().unwrap();
        if (got.dtype, &got.dims) != (want.dtype, &want.dims) {
            return Verdict::Wrong(format!("{}{:?} instead of {}{:?}", got.dtype, got.dims, want.dtype, want.dims));
        }
        let (Some(g), Some(w)) = (numbers(&got), numbers(want)) else { return Verdict::NotJudged };
        let close =
            |(g, w): (&f64, &f64)| g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= atol + rtol * w.abs();
        if let Some(i) = g.iter().zip(&w).position(|p| !close(p)) {
            return Verdict::Wrong(format!("element {i} is {}, should be {}", g[i], w[i]));
        }
    }
    Verdict::Right
}

fn tensors(folder: &Path, kind: &str) -> Option<Vec<Tensor>> {
    let paths = (0..).map(|k| folder.join(format!("{kind}_{k}.pb"))).take_while(|p| p.exists());
    paths
        .map(|p| {
            let message = TensorProto::decode(&*std::fs::read(p).ok()?).ok()?;
            tensor_from_proto(message).ok().map(|(_, t)| t)
        })
        .collect()
}

fn numbers(t: &Tensor) -> Option<Vec<f64>> {
    let b = t.bytes().ok()?;
    Some(match t.dtype {
        DType::F64 => b.chunks_exact(8).map(|x| f64::from_le_bytes(x.try_into().unwrap())).collect(),
        DType::U64 => b.chunks_exact(8).map(|x| u64::from_le_bytes(x.try_into().unwrap()) as f64).collect(),
        d if d.is_int() || d == DType::Bool => t.to_i64().ok()?.into_iter().map(|x| x as f64).collect(),
        _ => t.to_f32().ok()?.into_iter().map(f64::from).collect(),
    })
}
