//! The fuzz targets on their corpus, and on some mutations of it: what crashed once is tested for ever, also where there is
//! no C++ compiler for `fuzz/run`.

#[path = "common/choices.rs"]
mod choices;
#[path = "common/graphs.rs"]
mod graphs;
#[path = "common/judge.rs"]
mod judge;
#[path = "common/layout.rs"]
mod layout;
#[path = "../fuzz/src/targets.rs"]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Mutations of each file.
const MUTATIONS: usize = 4;

fn files(folders: &[&str]) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = |folder: &&str| fs::read_dir(root.join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let mut files: Vec<PathBuf> = folders.iter().flat_map(entries).map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.is_file());
    files.sort();
    files
}

/// Runs `target` on the files of the folders.
fn replay(target: fn(&[u8]), folders: &[&str]) {
    let files = files(folders);
    assert!(files.len() > 1, "only {} files in {folders:?}", files.len());
    let mut state = 1u64;
    let mut failures = vec![];
    for file in files {
        let bytes = fs::read(&file).unwrap();
        let mut judge = |what: &str, bytes: &[u8]| {
            if catch_unwind(AssertUnwindSafe(|| target(bytes))).is_err() {
                let kept = std::env::temp_dir().join(format!("sardonyx-crash-{}", failures.len()));
                fs::write(&kept, bytes).unwrap();
                failures.push(format!("{} {what}, kept as {}", file.display(), kept.display()));
            }
        };
        judge("as it is", &bytes);
        for k in 0..MUTATIONS {
            judge(&format!("mutation {k}"), &mutated(&bytes, &mut state));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// One to four bytes changed, removed or doubled, or the end cut off.
fn mutated(bytes: &[u8], state: &mut u64) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let mut next = |n: usize| {
        // Knuth's linear congruential generator (MMIX); the high bits are the good ones.
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as usize % n.max(1)
    };
    for _ in 0..1 + next(4) {
        if out.is_empty() {
            break;
        }
        let at = next(out.len());
        match next(5) {
            0 | 1 => out[at] = next(256) as u8,
            2 => drop(out.remove(at)),
            3 => out.insert(at, out[at]),
            _ => out.truncate(at.max(out.len() * 3 / 4)),
        }
    }
    out
}

#[test]
fn decoder() {
    replay(targets::decode, &["fuzz/corpus/decode", "fixtures/text"]);
}

#[test]
fn verifier() {
    replay(targets::verify, &["fuzz/corpus/verify", "fixtures/text"]);
}

#[test]
fn text_parser() {
    replay(targets::text, &["fuzz/corpus/text", "fixtures/text", "tests/passes/cases"]);
}

#[test]
fn pipeline() {
    replay(targets::simplify, &["fuzz/corpus/simplify", "fixtures/text", "tests/passes/cases"]);
}

#[test]
fn random_graphs() {
    replay(targets::graphs, &["fuzz/corpus/graphs"]);
}
