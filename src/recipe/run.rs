//! Runs a recipe from file to file.

use super::convert::{Conversion, convert};
use super::distill::Recovered;
use super::inspect::quantized_ops;
use super::layers::pattern;
use super::learn::learn;
use super::progress::Progress;
use super::prune::{PruneReport, prune};
use super::quantize::{Calibration, DEFAULT_BATCH, RANDOM_SAMPLES, quantize};
use super::schema::{PassOptions, Recipe, ValidateStep};
use super::search::{Searched, search};
use super::simplify::simplify;
use super::sparsify::{SparsifyReport, sparsify};
use super::trials::{Trials, keep_what_helps};
use crate::analysis::cost::{self, op_histogram};
use crate::analysis::shapes;
use crate::drift::{self, Agreement, Change, DriftReport, OutputDrift};
use crate::error::{Context, Error, Result};
use crate::io::{self, Dataset, State};
use crate::ir::{Graph, Model};
use crate::passes::manager::PassReport;
use crate::passes::quantize::Coverage;
use crate::passes::{Effect, PassContext};
use crate::recover::Distillation;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What a run did and what it cost.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// The model that came in.
    pub input: PathBuf,
    /// Where the result went.
    pub output: PathBuf,
    /// Whether it was written: not where a bound does not hold.
    pub written: bool,
    /// What each pass did.
    pub passes: Vec<PassReport>,
    /// What executing the simplified model against the original showed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Agreement>,
    /// What was pruned, and why not more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prune: Option<PruneReport>,
    /// What became sparse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparsify: Option<SparsifyReport>,
    /// What the ranges come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// How much was quantized, and why not more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// The precisions that a search found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<Searched>,
    /// Which options of accuracy helped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trials: Option<Trials>,
    /// What computes in half precision, and what does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversion: Option<Conversion>,
    /// What training on a teacher's outputs did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distillation: Option<Distillation>,
    /// What learning the rounding of weights did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounding: Option<Distillation>,
    /// What else a user should know.
    pub notes: Vec<String>,
    /// What it cost.
    pub drift: DriftReport,
}

/// Loads `input`, does what the recipe says, and writes `output` (which may be `input`) unless a bound does not hold.
///
/// # Errors
/// One line that names the place; nothing is written then.
pub fn run_files(recipe: &Recipe, input: &Path, output: &Path, progress: &dyn Progress) -> Result<RunReport> {
    recipe.check()?;
    let original = io::load(input)?;
    if recipe.trains() {
        io::check_writable(output)?; // before hours of work
    }
    let place = || input.display().to_string();
    let Rewritten { mut report, model, untrained } = rewrite(recipe, &original, progress).context(place)?;
    let bytes = io::encoded_size(&model)?;
    report.input = input.to_path_buf();
    report.output = output.to_path_buf();
    report.drift.models = Change::new(input.display().to_string(), output.display().to_string());
    report.drift.bytes = Change::new(io::model_bytes(input, &original)?, bytes);
    if let Some(step) = &recipe.validate {
        let (quantize, prune, distill) = (recipe.quantize.as_ref(), recipe.prune.as_ref(), recipe.distill.as_ref());
        let data = quantize.and_then(|q| q.data.as_deref()).or(prune.and_then(|p| p.data.as_deref()));
        let data = data.or(recipe.sparsify.as_ref().and_then(|s| s.data.as_deref()));
        let data = data.or(distill.map(|d| d.data.as_path()));
        let data = data.or(recipe.convert.as_ref().and_then(|c| c.data.as_deref()));
        let fallback = Fallback { data, state: quantize.map(|q| &q.state) };
        // A student is held against its teacher: what it was before says little.
        let teacher = distill.map(|d| io::load(&d.teacher)).transpose()?;
        let reference = teacher.as_ref().unwrap_or(&original);
        let place = || format!("{}: validation, which --no-validate leaves out", input.display());
        execute(reference, &model, step, fallback, &mut report.drift, progress).context(place)?;
        if let Some(untrained) = untrained {
            report.drift.untrained = compare(reference, &untrained, step, fallback, progress).context(place)?.0;
        }
    }
    report.written = report.drift.violations.is_empty();
    if report.written {
        io::save_with(&model, output, &recipe.save)?;
    }
    Ok(report)
}

/// What a recipe makes.
struct Rewritten {
    report: RunReport,
    model: Model,
    /// What it was before training, where it was trained.
    untrained: Option<Model>,
}

/// Applies the recipe's rewriting steps.
fn rewrite(recipe: &Recipe, original: &Model, progress: &dyn Progress) -> Result<Rewritten> {
    let (mut model, mut recovered) = (original.clone(), None);
    let mut report = RunReport {
        input: PathBuf::new(),
        output: PathBuf::new(),
        written: false,
        passes: vec![],
        agreement: None,
        prune: None,
        sparsify: None,
        calibration: None,
        coverage: None,
        search: None,
        trials: None,
        conversion: None,
        distillation: None,
        rounding: None,
        notes: vec![],
        drift: DriftReport::default(),
    };
    let cx = PassContext::with_fuel(recipe.passes.fuel);
    let options = &recipe.passes;
    let check = |pass: &PassReport, before: &Model, after: &Model| check_pass(options, pass, before, after);
    if let Some(step) = &recipe.simplify {
        let done = simplify(&mut model, step, options.fuel, Some(&check), progress)?;
        (report.passes, report.agreement) = (done.passes, done.agreement);
    }
    if let Some(step) = &recipe.prune {
        let (passes, pruned, trained) = prune(&mut model, step, &cx, Some(&check), progress)?;
        report.passes.extend(passes);
        report.prune = Some(pruned);
        recovered = trained;
    }
    if let Some(step) = &recipe.sparsify {
        let (passes, sparse, trained) = sparsify(&mut model, step, &cx, Some(&check), progress)?;
        report.passes.extend(passes);
        report.sparsify = Some(sparse);
        recovered = trained.or(recovered);
    }
    if let Some(step) = &recipe.quantize {
        let prior = model.clone();
        let (mut step, trials) = keep_what_helps(&model, step, progress)?;
        report.trials = trials;
        if let (Some(options), Some(judge)) = (step.search.clone(), &recipe.validate) {
            let searched = search(&model, &step, &options, judge, progress)?;
            step.options.nodes.extend(searched.assignment.iter().map(|(name, p)| (pattern(name), *p)));
            report.search = Some(searched);
        }
        let done = quantize(&mut model, &step, &cx, Some(&check), progress)?;
        let coverage = done.coverage()?;
        let nothing = done.is_empty();
        if !nothing {
            let (rounded, trained) = learn(&mut model, &prior, &done, &step, progress)?;
            report.rounding = rounded;
            recovered = trained.or(recovered);
        }
        if let bits @ (2 | 3) = step.options.weight_bits
            && !nothing
        {
            let stored = format!("weights of {bits} bits take 4 in the file: runtimes have no smaller type");
            report.notes.push(stored);
        }
        if step.strict {
            refuse_skipped(&coverage, nothing)?;
        }
        report.coverage = Some(coverage);
        report.calibration = Some(done.calibration);
        report.passes.extend(done.passes);
        if nothing {
            // What was prepared for it is of no use either.
            model = prior;
            let already = !quantized_ops(&done.prepared.graph).is_empty();
            let why = if already { "the model is quantized already" } else { "there is nothing to quantize" };
            report.notes.push(format!("{why}: it is written as it was"));
        }
    }
    if let Some(step) = &recipe.convert {
        let (conversion, passes) = convert(&mut model, step, &cx, Some(&check), progress)?;
        report.conversion = Some(conversion);
        report.passes.extend(passes);
    }
    if let Some(step) = &recipe.distill {
        let untrained = model.clone();
        let trained = super::distill::distill(&mut model, step, progress)?;
        recovered = Some(Recovered { untrained, report: trained });
    }
    let (untrained, distillation) = recovered.map(|r| (r.untrained, r.report)).unzip();
    report.distillation = distillation;
    let known = |name: &String| report.passes.iter().any(|p| p.pass == *name);
    if let Some(name) = options.dump_after.as_ref().filter(|n| !known(n)) {
        let names: Vec<&str> = report.passes.iter().map(|p| p.pass.as_str()).collect();
        return Err(Error::usage(format!("no pass \"{name}\" to dump after; these ran: {}", names.join(", "))));
    }
    report.drift.ops = Change::new(op_histogram(&original.graph), op_histogram(&model.graph));
    report.drift.macs = macs(original).zip(macs(&model)).map(|(a, b)| Change::new(a, b));
    Ok(Rewritten { report, model, untrained })
}

/// What `--strict` does not allow.
fn refuse_skipped(coverage: &Coverage, nothing: bool) -> Result<()> {
    let mut skipped = coverage.skipped();
    if let Some(first) = skipped.next() {
        let name = if first.name.is_empty() { "unnamed".into() } else { format!("\"{}\"", first.name) };
        let more = match skipped.count() {
            0 => String::new(),
            n => format!("; and {n} more (without --strict, --json names them)"),
        };
        let (op, reason) = (&first.op, &first.reason);
        return Err(Error::unsupported(format!("--strict: node {name} ({op}) stays in float: {reason}{more}")));
    }
    if nothing {
        return Err(Error::unsupported("--strict: there is nothing to quantize, or the model is quantized already"));
    }
    Ok(())
}

/// Largest relative L2 by which each effect may move an output of `--check-each`.
fn allowed(effect: Effect) -> Option<f64> {
    match effect {
        Effect::Exact => Some(1e-6), // tract may order the same sums differently
        Effect::Rounding => Some(1e-4),
        Effect::Lossy => None,
    }
}

fn check_pass(options: &PassOptions, pass: &PassReport, before: &Model, after: &Model) -> Result<()> {
    if options.dump_after.as_ref() == Some(&pass.pass) {
        super::dump::dump(after)?;
    }
    let Some(bound) = allowed(pass.effect).filter(|_| options.check_each) else { return Ok(()) };
    let data = Dataset::random(&before.graph, RANDOM_SAMPLES, 1)?;
    for output in drift::compare(before, after, &data, DEFAULT_BATCH, &|| {})? {
        if output.non_finite > 0 || output.relative_l2 > bound {
            return Err(Error::internal(format!(
                "output \"{}\" moved by {:.3e} (relative L2), declared {:?}",
                output.name, output.relative_l2, pass.effect
            )));
        }
    }
    Ok(())
}

fn macs(model: &Model) -> Option<u64> {
    let mut typed = model.clone();
    shapes::infer_types(&mut typed).ok()?;
    Some(cost::cost(&typed).macs)
}

/// Compares two model files.
///
/// # Errors
/// One line that names the file.
pub fn validate_files(
    original: &Path,
    rewritten: &Path,
    step: &ValidateStep,
    progress: &dyn Progress,
) -> Result<DriftReport> {
    step.check()?;
    let (a, b) = (io::load(original)?, io::load(rewritten)?);
    let mut report = DriftReport {
        models: Change::new(original.display().to_string(), rewritten.display().to_string()),
        bytes: Change::new(io::model_bytes(original, &a)?, io::model_bytes(rewritten, &b)?),
        ops: Change::new(op_histogram(&a.graph), op_histogram(&b.graph)),
        macs: macs(&a).zip(macs(&b)).map(|(a, b)| Change::new(a, b)),
        ..DriftReport::default()
    };
    execute(&a, &b, step, Fallback::default(), &mut report, progress)?;
    Ok(report)
}

/// What earlier steps were fed, for a comparison that names nothing itself.
#[derive(Clone, Copy, Default)]
pub(super) struct Fallback<'a> {
    pub data: Option<&'a Path>,
    pub state: Option<&'a State>,
}

/// Executes both models and fills in the report.
fn execute(
    original: &Model,
    rewritten: &Model,
    step: &ValidateStep,
    fallback: Fallback,
    report: &mut DriftReport,
    progress: &dyn Progress,
) -> Result<()> {
    let (outputs, samples, random) = compare(original, rewritten, step, fallback, progress)?;
    (report.outputs, report.samples, report.random) = (outputs, samples, random);
    report.violations = step.gate.violations(&report.outputs);
    Ok(())
}

/// The distance of each output, the number of samples, and whether they are random.
fn compare(
    original: &Model,
    rewritten: &Model,
    step: &ValidateStep,
    fallback: Fallback,
    progress: &dyn Progress,
) -> Result<(Vec<OutputDrift>, u64, bool)> {
    let data = open_data(&original.graph, step, fallback)?;
    let batch = step.batch.unwrap_or(DEFAULT_BATCH);
    let batches = data.batches(batch);
    progress.start("validating", batches.len());
    let outputs = drift::compare(original, rewritten, &data, batch, &|| progress.tick())?;
    progress.finish();
    Ok((outputs, (data.len() - batches.dropped()) as u64, data.is_random()))
}

/// The data of a validation: its own, else those of the quantization, else random input.
pub(super) fn open_data(graph: &Graph, step: &ValidateStep, fallback: Fallback) -> Result<Dataset> {
    let none = State::new();
    let state = if step.state.is_empty() { fallback.state.unwrap_or(&none) } else { &step.state };
    match step.data.as_deref().or(fallback.data) {
        Some(path) => {
            let mut data = Dataset::open_stateful(path, graph, step.label.as_deref(), state)?;
            data.limit(step.samples.unwrap_or(usize::MAX));
            Ok(data)
        }
        None if step.label.is_some() => Err(Error::usage("labels need data: give --data")),
        None => {
            let mut data = Dataset::random(graph, step.samples.unwrap_or(RANDOM_SAMPLES), 0)?;
            data.link(graph, state)?;
            Ok(data)
        }
    }
}
