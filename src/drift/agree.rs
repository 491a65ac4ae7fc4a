//! Whether two models compute the same, on made-up input: what a rewrite that loses nothing must show.

use crate::error::Result;
use crate::io::{Feed, Probe};
use crate::ir::{Model, Tensor};
use crate::runtime::{RunOutput, Runner, RunnerOptions};
use serde::Serialize;

/// Largest relative L2 distance of an f32 or f64 output that rounding in another order explains.
const ROUNDING: f64 = 1e-4;
/// The same for 16-bit floats.
const HALF_ROUNDING: f64 = 1e-2;

/// What executing both models showed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Agreement {
    /// Inputs on which both models were executed.
    pub probes: usize,
    /// Inputs that the original itself does not take, and why.
    pub skipped: Vec<String>,
    /// The largest relative L2 distance of a float output.
    pub relative_l2: f64,
    /// Why nothing was executed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_executed: Option<String>,
    /// The first output that is not the same, and how.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disagreement: Option<String>,
}

impl Agreement {
    /// Nothing was executed, for this reason.
    pub fn not_executed(why: impl Into<String>) -> Self {
        Self { not_executed: Some(why.into()), ..Self::default() }
    }
}

/// A model whose outputs on some probes are known.
pub struct Reference {
    names: Vec<String>,
    runs: Vec<(Probe, Vec<RunOutput>)>,
    skipped: Vec<String>,
}

impl Reference {
    /// Executes `model` on the probes. A probe that it does not take is left out.
    ///
    /// # Errors
    /// Operators that tract cannot run faithfully, by name; or no probe that the model takes.
    pub fn new(model: &Model, probes: Vec<Probe>) -> Result<Self> {
        let runner = Runner::new(model, &RunnerOptions::default())?;
        let names = model.graph.outputs().iter().map(|&v| model.graph.name(v).to_string()).collect();
        let (mut runs, mut skipped, mut last) = (vec![], vec![], None);
        for probe in probes {
            match runner.run(&probe.feed) {
                Ok(outputs) => runs.push((probe, outputs)),
                Err(e) => {
                    skipped.push(format!("{}: {e}", probe.what));
                    last = Some(e);
                }
            }
        }
        match last {
            Some(e) if runs.is_empty() => Err(e),
            _ => Ok(Self { names, runs, skipped }),
        }
    }

    /// Executes `candidate` on what the reference took.
    pub fn compare(&self, candidate: &Model) -> Agreement {
        let mut agreement = Agreement { skipped: self.skipped.clone(), ..Agreement::default() };
        let runner = match Runner::new(candidate, &RunnerOptions::default()) {
            Ok(runner) => runner,
            Err(e) => return Agreement::not_executed(format!("the rewritten model: {e}")),
        };
        for (probe, expected) in &self.runs {
            match self.one(&runner, &probe.feed, expected) {
                Ok(distance) => agreement.relative_l2 = agreement.relative_l2.max(distance),
                Err(how) => {
                    agreement.disagreement = Some(format!("on {}: {how}", probe.what));
                    return agreement;
                }
            }
            agreement.probes += 1;
        }
        agreement
    }

    fn one(&self, runner: &Runner, feed: &Feed, expected: &[RunOutput]) -> std::result::Result<f64, String> {
        let got = runner.run(feed).map_err(|e| format!("the rewritten model fails: {e}"))?;
        let mut worst = 0.0f64;
        for ((a, b), name) in expected.iter().zip(&got).zip(&self.names) {
            let place = |how: String| format!("output \"{name}\" {how}");
            let tensors = a.to_tensor().and_then(|a| Ok((a, b.to_tensor()?)));
            let (a, b) = tensors.map_err(|e| place(e.to_string()))?;
            worst = worst.max(distance(&a, &b).map_err(place)?);
        }
        Ok(worst)
    }
}

/// Relative L2 distance where it is one that rounding explains; integers, shapes, types, infinities and the places of NaN
/// must be equal.
fn distance(a: &Tensor, b: &Tensor) -> std::result::Result<f64, String> {
    if a.dtype != b.dtype || a.dims != b.dims {
        return Err(format!("is {}{:?}, was {}{:?}", b.dtype, b.dims, a.dtype, a.dims));
    }
    if !a.dtype.is_float() {
        return if a == b { Ok(0.0) } else { Err("has other elements".into()) };
    }
    let (x, y) = match (a.to_f32(), b.to_f32()) {
        (Ok(x), Ok(y)) => (x, y),
        (Err(e), _) | (_, Err(e)) => return Err(format!("cannot be compared: {e}")),
    };
    let (mut error, mut norm) = (0.0f64, 0.0f64);
    for (&x, &y) in x.iter().zip(&y) {
        let (x, y) = (f64::from(x), f64::from(y));
        if !x.is_finite() || !y.is_finite() {
            if x.is_nan() && y.is_nan() || x == y {
                continue;
            }
            return Err(format!("has {y} where it had {x}"));
        }
        error += (x - y) * (x - y);
        norm += x * x;
    }
    let relative = if error == 0.0 { 0.0 } else { (error / norm.max(f64::MIN_POSITIVE)).sqrt() };
    let bound = if a.dtype.bits() < 32 { HALF_ROUNDING } else { ROUNDING };
    // What is all zeros but for rounding has no relative distance.
    let tiny = error.sqrt() <= 1e-6 * (x.len() as f64).sqrt();
    if relative > bound && !tiny {
        return Err(format!("moved by {relative:.2e} (relative L2)"));
    }
    Ok(if relative > bound { 0.0 } else { relative })
}
