//! Decoding and encoding every real model at hand gives an equal message.

use prost::Message;
use sardonyx::io::{decode_model, model_to_proto};
use sardonyx::proto::ModelProto;
use std::path::{Path, PathBuf};

fn onnx_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let mut found = vec![];
    for path in entries.map(|e| e.unwrap().path()) {
        if path.is_dir() {
            found.extend(Some(path.join("model.onnx")).filter(|p| p.exists()));
        } else if path.extension().is_some_and(|e| e == "onnx") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn every_model_survives_the_round_trip() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    if !shared.exists() {
        eprintln!("skipped: {} is absent", shared.display());
        return;
    }
    let folders = ["models", "digits", "onnx-node-tests"];
    let files: Vec<PathBuf> = folders.iter().flat_map(|f| onnx_files(&shared.join(f))).collect();
    let mut failures = vec![];
    for file in &files {
        let bytes = bytes::Bytes::from(std::fs::read(file).unwrap());
        let original = ModelProto::decode(bytes.clone()).unwrap();
        let again = match decode_model(bytes).and_then(|m| m.verify().and_then(|()| model_to_proto(&m))) {
            Ok(message) => message,
            Err(e) => {
                failures.push(format!("{}: {e}", file.display()));
                continue;
            }
        };
        // NaN differs from itself, so a message with a NaN attribute is compared as encoded.
        if again != original && again.encode_to_vec() != original.encode_to_vec() {
            failures.push(format!("{}: {}", file.display(), difference(&original, &again)));
        }
    }
    eprintln!("{} models", files.len());
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), files.len(), failures.join("\n"));
}

/// The first line that differs in the messages' debug text.
fn difference(a: &ModelProto, b: &ModelProto) -> String {
    let (a, b) = (format!("{a:#?}"), format!("{b:#?}"));
    let lines = a.lines().zip(b.lines()).enumerate().find(|(_, (x, y))| x != y);
    lines.map_or("one is longer".into(), |(k, (x, y))| format!("line {k}: {} became {}", x.trim(), y.trim()))
}
