//! A folder of its own for each test, in which the command runs.

use sardonyx::io::{text, write_npz};
use sardonyx::ir::{Model, Tensor};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A file of `fixtures/digits`.
pub fn digits(file: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/digits").join(file).display().to_string()
}

/// What a run of the command left.
pub struct Run {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A temporary folder.
pub struct Sandbox {
    folder: TempDir,
}

impl Sandbox {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// Names of all files and folders in it, sorted.
    pub fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    pub fn write_model(&self, name: &str, model: &Model) {
        sardonyx::io::save(model, &self.path(name)).unwrap();
    }

    /// A `.npz` of one array.
    pub fn write_data(&self, name: &str, array: &str, tensor: Tensor) {
        write_npz(&self.path(name), &[(array.to_string(), tensor)]).unwrap();
    }

    /// Runs the command in the folder.
    pub fn run(&self, args: &[&str]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sardonyx"));
        let output = command.args(args).current_dir(self.folder.path()).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let status = output.status.code().expect("it ended by itself");
        Run { status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Runs a command that must fail as errors do: status 1, one line `error: ...` that contains `want`, and not a file
    /// more or less than before.
    #[track_caller]
    pub fn refused(&self, args: &[&str], want: &str) {
        let before = self.files();
        let run = self.run(args);
        let what = format!("{args:?} gave status {}, {:?}, {:?}", run.status, run.stdout, run.stderr);
        assert_eq!((run.status, run.stdout.as_str()), (1, ""), "{what}");
        assert!(run.stderr.starts_with("error: ") && run.stderr.ends_with('\n'), "{what}");
        assert_eq!(run.stderr.matches('\n').count(), 1, "{what}");
        for noise in ["panick", "internal error", "RUST_BACKTRACE", "Some(", "\u{1b}"] {
            assert!(!run.stderr.contains(noise), "{what}");
        }
        assert!(run.stderr.contains(want), "no {want:?}: {what}");
        assert_eq!(self.files(), before, "{what}");
    }
}

/// A small model whose input is `float[N,1,4,4] x`; `weights` and `bias` are the Conv's, as text.
pub fn small_model(weights: &str, bias: &str) -> Model {
    let source = format!(
        r#"<ir_version: 8, opset_import: ["" : 17]>
small (float[N,1,4,4] x) => (float[N,2] y)
<float[2,1,2,2] w = {{{weights}}}, float[2] b = {{{bias}}}, float[2,2] g = {{1.0,-0.5,0.25,2.0}}, float[2] gb = {{0.5,0.1}}>
{{
    [conv] c = Conv (x, w, b)
    [relu] r = Relu (c)
    [pool] p = GlobalAveragePool (r)
    [flat] f = Flatten (p)
    [head] y = Gemm (f, g, gb)
}}"#
    );
    text::parse_model(&source).unwrap()
}

pub const WEIGHTS: &str = "0.5,-1.0,0.25,1.0,0.1,0.2,-0.3,0.4";
pub const BIAS: &str = "0.5,-0.5";

/// Samples of the shape `dims` for it.
pub fn ramp(dims: &[usize]) -> Tensor {
    let n = dims.iter().product::<usize>();
    let values: Vec<f32> = (0..n).map(|k| (k * 37 % 101) as f32 / 50.0 - 1.0).collect();
    Tensor::from_f32(dims, &values)
}
