//! What simplification costs: load, infer, simplify, save. `cargo bench --bench simplify [-- FILTER]`.
//!
//! On the digits fixtures, generated chains and, where `../shared/models` is present, bigger models.

#![allow(missing_docs)] // criterion's macros make functions

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use sardonyx::analysis::shapes::infer_types;
use sardonyx::io::text::parse_model;
use sardonyx::io::{load, save};
use sardonyx::ir::Model;
use sardonyx::recipe::{Silent, SimplifyStep, simplify};
use std::fmt::Write;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Nodes of the generated chains.
const LENGTH: usize = 10_000;

fn models() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![];
    for folder in ["fixtures/digits", "../shared/models"] {
        match std::fs::read_dir(root.join(folder)) {
            Ok(entries) => found.extend(entries.filter_map(|e| e.ok()).map(|e| e.path())),
            Err(e) => eprintln!("{folder} is left out: {e}"),
        }
    }
    found.retain(|p| p.extension().is_some_and(|e| e == "onnx"));
    found.sort();
    let named = |p: PathBuf| (p.file_stem().unwrap_or_default().to_string_lossy().into_owned(), p);
    found.into_iter().map(named).collect()
}

/// `length` nodes in a row. In `kept` no rule finds anything; in `removed` every other node goes; `folded` is constant.
fn chain(kind: &str, length: usize) -> Model {
    let mut nodes = String::new();
    let first = if kind == "folded" { "w" } else { "x" };
    for k in 0..length {
        let op = match kind {
            "removed" if k % 2 == 1 => "Identity",
            _ if k % 3 == 0 => "Sin",
            _ => "Tanh",
        };
        let from = if k == 0 { first.to_string() } else { format!("v{k}") };
        let _ = writeln!(nodes, "v{} = {op} ({from})", k + 1);
    }
    let text = format!(
        "<ir_version: 8, opset_import: [\"\" : 17]> g (float[4] x) => (float[4] y) <float[4] w = {{1,2,3,4}}> {{ {nodes} y = Add (v{length}, x) }}"
    );
    parse_model(&text).unwrap_or_else(|e| panic!("{kind}: {e}"))
}

fn simplified(mut model: Model) -> Model {
    let step = SimplifyStep { check: false, ..SimplifyStep::default() };
    match simplify(&mut model, &step, None, None, &Silent) {
        Ok(_) => model,
        Err(e) => panic!("{e}"),
    }
}

fn steps(c: &mut Criterion, name: &str, path: &Path, model: &Model, out: &Path) {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500));
    group.bench_function("load", |b| b.iter(|| load(black_box(path)).is_ok()));
    group.bench_function("infer", |b| {
        b.iter_batched_ref(|| model.clone(), |m| infer_types(m).is_ok(), BatchSize::PerIteration)
    });
    group.bench_function("simplify", |b| b.iter_batched(|| model.clone(), simplified, BatchSize::PerIteration));
    let result = simplified(model.clone());
    group.bench_function("save", |b| b.iter(|| save(black_box(&result), out).is_ok()));
    group.finish();
}

fn all(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("no temporary folder: {e}"));
    let out = folder.path().join("out.onnx");
    for (name, path) in models() {
        match load(&path) {
            Ok(model) => steps(c, &name, &path, &model, &out),
            Err(e) => eprintln!("{name} is left out: {e}"),
        }
    }
    for kind in ["kept", "removed", "folded"] {
        let path = folder.path().join(format!("{kind}.onnx"));
        let model = chain(kind, LENGTH);
        save(&model, &path).unwrap_or_else(|e| panic!("{e}"));
        steps(c, &format!("chain of {LENGTH}, {kind}"), &path, &model, &out);
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
