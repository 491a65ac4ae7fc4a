//! Mixed precision: the cheapest precision of every layer with which the bounds hold.

use super::layers::{Assignment, Layer, Measured, Trial};
use super::progress::Progress;
use super::schema::{QuantizeStep, Search, ValidateStep};
use crate::drift::Gate;
use crate::error::{Error, Result};
use crate::ir::Model;
use crate::passes::quantize::Precision;
use serde::Serialize;
use std::collections::BTreeMap;

/// What the search found.
#[derive(Clone, Debug, Serialize)]
pub struct Searched {
    /// Precision of every layer.
    pub assignment: BTreeMap<String, Precision>,
    /// Number of models that were quantized and executed.
    pub measurements: usize,
    /// Samples that they were executed on.
    pub samples: usize,
    /// Bytes of the model with every layer in the cheapest precision.
    pub cheapest_bytes: u64,
    /// Bytes of the model that was found.
    pub bytes: u64,
    /// Relative L2 of its worst output.
    pub relative_l2: f64,
}

/// Greedy search. Every layer starts in the cheapest precision. While a bound does not hold, the layer whose next better
/// precision removes the most error for its bytes gets it; errors are those measured with this layer alone. As soon as
/// the sum of them says that the bound may hold, every step is executed. At the end every layer that is not in the
/// cheapest precision is tried one step lower, the least sensitive first, and stays there if all bounds hold.
///
/// # Errors
/// No bound to hold; bounds that do not hold even with every layer in the best precision.
pub fn search(
    model: &Model,
    step: &QuantizeStep,
    options: &Search,
    judge: &ValidateStep,
    progress: &dyn Progress,
) -> Result<Searched> {
    if judge.gate == Gate::default() {
        return Err(Error::usage("a search needs a bound: --max-drift, --min-sqnr, --max-drop or --min-agreement"));
    }
    let mut ladder = options.precisions.clone();
    ladder.sort_by_key(|p| std::cmp::Reverse(*p));
    ladder.dedup();
    let trial = Trial::new(model, step, judge)?;
    trial.check()?;
    let mut run = Run { trial: &trial, gate: &judge.gate, ladder, table: BTreeMap::new(), measurements: 0, progress };
    let found = run.greedy()?;
    let last = run.measure(&found)?;
    Ok(Searched {
        cheapest_bytes: run.measure(&run.all(0))?.bytes,
        assignment: found,
        measurements: run.measurements,
        samples: trial.samples().0,
        bytes: last.bytes,
        relative_l2: last.energy().sqrt(),
    })
}

struct Run<'a> {
    trial: &'a Trial<'a>,
    gate: &'a Gate,
    /// Cheapest first.
    ladder: Vec<Precision>,
    /// By layer and rung: error and bytes with this layer alone there and all others in the best precision.
    table: BTreeMap<(String, usize), (f64, u64)>,
    measurements: usize,
    progress: &'a dyn Progress,
}

impl Run<'_> {
    fn measure(&mut self, assignment: &Assignment) -> Result<Measured> {
        self.measurements += 1;
        self.trial.measure(assignment)
    }

    fn holds(&self, measured: &Measured) -> bool {
        self.gate.violations(&measured.outputs).is_empty()
    }

    fn all(&self, rung: usize) -> Assignment {
        self.trial.layers.iter().map(|l| (l.name.clone(), self.ladder[rung])).collect()
    }

    fn greedy(&mut self) -> Result<Assignment> {
        let (cheapest, best) = (self.all(0), self.ladder.len() - 1);
        if self.measure(&cheapest).is_ok_and(|m| self.holds(&m)) {
            return Ok(cheapest);
        }
        let ceiling = self.measure(&self.all(best))?;
        if !self.holds(&ceiling) {
            let why = self.gate.violations(&ceiling.outputs).join(" ");
            let top = self.ladder[best].name();
            return Err(Error::unsupported(format!("no assignment holds: with every layer in {top}, {why}")));
        }
        self.fill_table(best)?;
        let rungs = self.climb(best)?;
        self.descend(rungs)
    }

    fn fill_table(&mut self, best: usize) -> Result<()> {
        let layers: Vec<Layer> = self.trial.layers.clone();
        self.progress.start("measuring layers", layers.len() * best);
        for layer in &layers {
            for rung in 0..best {
                let alone = self.trial.only(self.ladder[best], &layer.name, self.ladder[rung]);
                let m = self.measure(&alone)?;
                self.table.insert((layer.name.clone(), rung), (m.energy(), m.bytes));
                self.progress.tick();
            }
        }
        let ceiling = self.measure(&self.all(best))?;
        for layer in &layers {
            self.table.insert((layer.name.clone(), best), (ceiling.energy(), ceiling.bytes));
        }
        self.progress.finish();
        Ok(())
    }

    fn entry(&self, layer: &str, rung: usize) -> (f64, u64) {
        self.table.get(&(layer.to_string(), rung)).copied().unwrap_or((0.0, 0))
    }

    /// Error that a layer loses, and bytes that it gains, by going one rung up.
    fn gain(&self, layer: &str, rung: usize) -> f64 {
        let ((e0, b0), (e1, b1)) = (self.entry(layer, rung), self.entry(layer, rung + 1));
        (e0 - e1) / b1.saturating_sub(b0).max(1) as f64
    }

    fn climb(&mut self, best: usize) -> Result<BTreeMap<String, usize>> {
        let mut rungs: BTreeMap<String, usize> = self.trial.layers.iter().map(|l| (l.name.clone(), 0)).collect();
        self.progress.start("searching", rungs.len() * best);
        while rungs.values().any(|&r| r < best) {
            let next = rungs
                .iter()
                .filter(|(_, r)| **r < best)
                .max_by(|(a, i), (b, j)| self.gain(a, **i).total_cmp(&self.gain(b, **j)))
                .map(|(name, _)| name.clone());
            let Some(name) = next else { break };
            *rungs.entry(name).or_default() += 1;
            self.progress.tick();
            let sum: f64 = rungs.iter().map(|(name, &r)| self.entry(name, r).0).sum();
            if self.may_hold(sum) && self.measure(&self.assignment(&rungs)).is_ok_and(|m| self.holds(&m)) {
                break;
            }
        }
        self.progress.finish();
        Ok(rungs)
    }

    /// Whether the predicted squared error is near enough to the bound to be worth a run: errors that partly cancel make
    /// the prediction too high.
    fn may_hold(&self, energy: f64) -> bool {
        const SLACK: f64 = 2.0;
        let from_sqnr = self.gate.min_sqnr.map(|db| 10f64.powf(-db / 10.0));
        let from_drift = self.gate.max_drift.map(|d| d * d);
        let bound = [from_sqnr, from_drift].into_iter().flatten().fold(f64::INFINITY, f64::min);
        energy <= SLACK * bound
    }

    fn assignment(&self, rungs: &BTreeMap<String, usize>) -> Assignment {
        rungs.iter().map(|(name, &r)| (name.clone(), self.ladder[r])).collect()
    }

    /// Backs off where it costs nothing.
    fn descend(&mut self, mut rungs: BTreeMap<String, usize>) -> Result<Assignment> {
        let mut raised: Vec<String> = rungs.iter().filter(|(_, r)| **r > 0).map(|(n, _)| n.clone()).collect();
        raised.sort_by(|a, b| self.gain(a, rungs[a] - 1).total_cmp(&self.gain(b, rungs[b] - 1)));
        self.progress.start("backing off", raised.len());
        for name in raised {
            let rung = rungs[&name];
            rungs.insert(name.clone(), rung - 1);
            if !self.measure(&self.assignment(&rungs)).is_ok_and(|m| self.holds(&m)) {
                rungs.insert(name, rung);
            }
            self.progress.tick();
        }
        self.progress.finish();
        Ok(self.assignment(&rungs))
    }
}
