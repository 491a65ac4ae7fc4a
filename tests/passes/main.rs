//! Every text case of `tests/passes/cases`: parse, verify, run the pass, verify, snapshot, run again and require no
//! change, protobuf round trip, execute before and after within the pass's effect.
//!
//! A case is a model in ONNX's text syntax whose comments say which pass runs and whether it must change something:
//! `# pass: fold_batch_norm`, `# expect: fires` or `# expect: nothing`; `# not executed: why` where tract cannot. To accept new results: `INSTA_UPDATE=always cargo test
//! --test passes`, then read the difference of `tests/passes/snapshots`.

use prost::Message;
use sardonyx::analysis::shapes::infer_types;
use sardonyx::io::text::{parse_model, print_model};
use sardonyx::io::{Dataset, Feed, decode_model, model_to_proto};
use sardonyx::ir::{Model, Tensor};
use sardonyx::passes::manager::{self, PassReport};
use sardonyx::passes::quantize::{QuantizeOptions, SplitGemmBias};
use sardonyx::passes::simplify::{FOLD_LIMIT, LiftInitializerInputs, simplify};
use sardonyx::passes::{Effect, Outcome, Pass, PassContext};
use sardonyx::recipe::rule_table;
use sardonyx::runtime::{Runner, RunnerOptions, RuntimeEvaluator};
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Share of an output's largest element by which rounding may move any element.
const ROUNDING: f32 = 1e-5;

fn pass(name: &str) -> Box<dyn Pass> {
    if let Some((name, effect)) = rule_table().into_iter().find(|(rule, _)| *rule == name) {
        return Box::new(OneRule { name, effect });
    }
    let all: [Box<dyn Pass>; 2] =
        [Box::new(LiftInitializerInputs), Box::new(SplitGemmBias { options: QuantizeOptions::default() })];
    all.into_iter().find(|p| p.name() == name).unwrap_or_else(|| panic!("no pass \"{name}\""))
}

/// The simplification with every other rule disabled.
struct OneRule {
    name: &'static str,
    effect: Effect,
}

impl Pass for OneRule {
    fn name(&self) -> &'static str {
        self.name
    }

    fn effect(&self) -> Effect {
        self.effect
    }

    fn run(&self, model: &mut Model, _: &PassContext) -> sardonyx::error::Result<Outcome> {
        let mut cx = PassContext::default();
        cx.disabled = rule_table().iter().map(|(rule, _)| rule.to_string()).filter(|r| r != self.name).collect();
        simplify(&RuntimeEvaluator, FOLD_LIMIT).run(model, &cx)
    }
}

/// What the comments say.
struct Case {
    name: String,
    pass: Box<dyn Pass>,
    fires: bool,
    executed: bool,
    model: Model,
}

impl Case {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_string();
        let comment = |key: &str| {
            let found = text.lines().find_map(|l| l.strip_prefix(&format!("# {key}: ")));
            found.unwrap_or_else(|| panic!("{name}: no comment \"# {key}: \"")).to_string()
        };
        let fires = match comment("expect").as_str() {
            "fires" => true,
            "nothing" => false,
            other => panic!("{name}: cannot expect {other:?}"),
        };
        let pass = pass(&comment("pass"));
        let mut model = parse_model(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        infer_types(&mut model).unwrap_or_else(|e| panic!("{name}: {e}"));
        let executed = !text.contains("\n# not executed: ");
        Self { name, pass, fires, executed, model }
    }

    fn run(&self, model: &mut Model) -> PassReport {
        let mut reports = manager::run(model, &[&*self.pass], &PassContext::default(), None).unwrap();
        model.verify().unwrap();
        reports.remove(0)
    }

    fn judge(&self) {
        let name = &self.name;
        self.model.verify().unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut after = self.model.clone();
        let report = self.run(&mut after);
        assert_eq!(report.changes > 0, self.fires, "{name}: {} changes", report.changes);
        let text = print_model(&after).unwrap();
        if !self.fires {
            assert_eq!(text, print_model(&self.model).unwrap(), "{name}: changed, but not counted");
        }
        let again = self.run(&mut after.clone());
        assert_eq!(again.changes, 0, "{name}: the second run still finds something");
        let bytes = model_to_proto(&after).unwrap().encode_to_vec();
        let decoded = decode_model(bytes.into()).unwrap();
        assert_eq!(print_model(&decoded).unwrap(), text, "{name}: lost in the protobuf round trip");
        if self.executed {
            let [before, after] = [&self.model, &after].map(|m| execute(name, &self.model, m));
            compare(name, report.effect, &before, &after);
        }
        if self.fires {
            snapshot(name, &report, &text);
        }
    }
}

/// The outputs of `model` on seeded random input for `original`.
fn execute(name: &str, original: &Model, model: &Model) -> Vec<Tensor> {
    let data = Dataset::random(&original.graph, 2, 1).unwrap();
    let runner = Runner::new(model, &RunnerOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let run = |all: &mut Vec<(usize, Vec<Tensor>)>, i: usize, feed: &Feed| {
        let outputs = runner.run(feed)?;
        all.push((i, outputs.iter().map(|o| o.to_tensor()).collect::<Result<_, _>>()?));
        Ok(())
    };
    let parts = data.batches(2).fold(Vec::new, run).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut batches: Vec<_> = parts.into_iter().flatten().collect();
    batches.sort_by_key(|(i, _)| *i);
    let outputs: Vec<Tensor> = batches.into_iter().flat_map(|(_, outputs)| outputs).collect();
    assert!(!outputs.is_empty(), "{name}");
    outputs
}

fn compare(name: &str, effect: Effect, before: &[Tensor], after: &[Tensor]) {
    assert_eq!(before.len(), after.len(), "{name}");
    for (a, b) in before.iter().zip(after) {
        assert_eq!((a.dtype, &a.dims), (b.dtype, &b.dims), "{name}");
        if effect == Effect::Exact || !a.dtype.is_float() {
            assert_eq!(a.bytes().unwrap(), b.bytes().unwrap(), "{name}: the outputs differ");
            continue;
        }
        let (a, b) = (a.to_f32().unwrap(), b.to_f32().unwrap());
        let largest = a.iter().filter(|x| x.is_finite()).fold(0.0f32, |m, x| m.max(x.abs()));
        let same = |(a, b): (&f32, &f32)| (a - b).abs() <= ROUNDING * largest || (a.is_nan() && b.is_nan());
        assert!(a.iter().zip(&b).all(same), "{name}: more than rounding: {a:?}, {b:?}");
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/passes").join(name)
}

fn snapshot(name: &str, report: &PassReport, text: &str) {
    let mut out = format!("{} changes, effect {:?}\n", report.changes, report.effect);
    for note in &report.notes {
        out += &format!("note: {}: {}\n", note.subject, note.text);
    }
    out += text;
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder("snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, out));
}

/// Names of the files of a folder without their last extension.
fn stems(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.map(|p| p.file_stem().unwrap().to_str().unwrap().to_string()).collect()
}

#[test]
fn passes_do_what_their_cases_say() {
    let names = stems(&folder("cases"));
    assert!(names.len() >= 50, "only {} cases were found", names.len());
    let mut fires = BTreeSet::new();
    let mut failures = vec![];
    for name in names {
        let case = Case::read(&folder("cases").join(format!("{name}.txt")));
        if case.fires {
            fires.insert(name.clone());
        }
        // All cases are judged before the test fails, as a change often concerns several.
        if catch_unwind(AssertUnwindSafe(|| case.judge())).is_err() {
            failures.push(name);
        }
    }
    assert!(failures.is_empty(), "{} cases fail: {}", failures.len(), failures.join(", "));
    assert_eq!(stems(&folder("snapshots")), fires, "snapshots without a case that fires, or the other way round");
}
