//! Imports go downward only: a module uses its own layer's module and the layers below, never another of its own layer
//! or one above.

use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom up.
const LAYERS: [&[&str]; 10] = [
    &["error"],
    &["proto", "math"],
    &["ir"],
    &["io", "ops", "calibrate"],
    &["analysis"],
    &["passes"],
    &["runtime"],
    &["recover", "drift"],
    &["recipe"],
    &["cli"],
];

/// Re-exported at the root from `error`.
const FROM_ERROR: [&str; 3] = ["Context", "Error", "Result"];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|l| l.contains(&module))
}

/// What is wrong with the imports of a file of `module`: one line each.
fn violations(module: &str, code: &str) -> Vec<String> {
    let Some(own) = layer(module) else { return vec![format!("module {module} is in no layer")] };
    let mut found = vec![];
    for (line, name) in imports(code) {
        if name == module || FROM_ERROR.contains(&name.as_str()) {
            continue;
        }
        match layer(&name) {
            None => found.push(format!("line {line}: crate::{name} is in no layer")),
            Some(other) if other < own => {}
            Some(_) => found.push(format!("line {line}: {module} uses {name}, which is not below it")),
        }
    }
    found
}

/// The root modules that the code names as `crate::X`, `crate::{X, ...}` or `sardonyx::X`, with line numbers.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = vec![];
    let stripped: String = code.lines().map(|l| l.split("//").next().unwrap_or("").to_string() + "\n").collect();
    for root in ["crate::", "sardonyx::"] {
        for (at, _) in stripped.match_indices(root) {
            let line = stripped[..at].matches('\n').count() + 1;
            let rest = &stripped[at + root.len()..];
            found.extend(first_names(rest).into_iter().map(|name| (line, name)));
        }
    }
    found
}

/// `a` of `a::b`; `a` and `c` of `{a::b, c::{d, e}}`.
fn first_names(path: &str) -> Vec<String> {
    let name = |s: &str| s.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut depth, mut start, mut names) = (0, 0, vec![]);
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(name(&group[start..i]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(name(&group[start..i]));
                start = i + 1;
            }
            _ => {}
        }
    }
    names.retain(|n| !n.is_empty());
    names
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn imports_go_downward() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![];
    rust_files(&src, &mut files);
    files.sort();
    let mut wrong = vec![];
    let mut judged = 0;
    for file in files {
        let relative = file.strip_prefix(&src).unwrap();
        if ["lib.rs", "main.rs"].iter().any(|root| relative == Path::new(root)) {
            continue; // the roots name every module
        }
        let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs");
        judged += 1;
        let lines = violations(module, &fs::read_to_string(&file).unwrap());
        wrong.extend(lines.into_iter().map(|l| format!("src/{}: {l}", relative.display())));
    }
    assert!(judged > 100, "only {judged} files were found");
    assert!(wrong.is_empty(), "{} imports go sideways or upward:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_breaks_the_order_is_found() {
    let bad = |module, code| violations(module, code).len();
    assert_eq!(bad("ir", "use crate::error::Result;\nuse crate::proto;\nuse crate::Error;\n"), 0);
    assert_eq!(bad("ir", "use crate::io::load;"), 1);
    assert_eq!(bad("io", "fn f() { crate::ops::spec() }"), 1, "sideways");
    assert_eq!(bad("passes", "use crate::{ir::{Graph, Node}, io};"), 0);
    assert_eq!(bad("passes", "use crate::{ir::{Graph, Node}, runtime::Runner, recipe};"), 2);
    assert_eq!(bad("passes", "//! See [`crate::runtime`].\n// use crate::runtime;"), 0);
    assert_eq!(bad("cli", "use sardonyx::recipe::Recipe;"), 0);
    assert_eq!(bad("elsewhere", ""), 1);
    assert_eq!(bad("cli", "use crate::elsewhere;"), 1);
}
