//! Which learning rate suits a run: short runs before it.

use super::Run;
use crate::error::Result;
use crate::recover::Parameters;
use crate::recover::distill::Status;
use crate::recover::optimizer::{Optimizer, rate_at};
use serde::Serialize;
use std::time::Instant;

/// Share of the run that a trial takes.
const SHARE: f64 = 0.04;

/// Fewer steps than this say nothing of a rate.
const LEAST_STEPS: usize = 5;

/// A run of fewer trials than this has no time for one.
const LEAST_RUN: usize = 8;

/// Share of a trial in which the rate rises.
const WARM_UP: f64 = 0.2;

/// What became of a rate.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct TriedRate {
    /// The largest learning rate.
    pub rate: f64,
    /// Loss on what is held out after its trial; infinite where training failed.
    pub validation: f64,
}

/// A trial, and where it ended.
struct Trial {
    tried: TriedRate,
    parameters: Parameters<f32>,
    optimizer: Optimizer,
}

impl Run<'_> {
    /// Tries neighbours of the second of the rates to choose from, as long as the next is better, and goes on from where the
    /// best of them came to, if that is better than the start. Where a trial would be too short, the first and smallest is
    /// taken. Returns whether to go on.
    pub(super) fn choose_rate(&mut self, steps: usize, watch: &mut dyn FnMut(&Status) -> bool) -> Result<bool> {
        let rates = self.options.learning_rates.clone();
        self.state.rate = rates[0];
        if rates.len() < 2 || steps < LEAST_RUN * LEAST_STEPS {
            return Ok(true);
        }
        let Some(mut best) = self.trial(rates[1], steps, watch)? else { return Ok(self.report.stopped.is_none()) };
        let mut climbs = false;
        for &rate in &rates[2..] {
            match self.trial(rate, steps, watch)? {
                Some(next) if next.tried.validation < best.tried.validation => (best, climbs) = (next, true),
                _ => break,
            }
        }
        if !climbs
            && self.report.stopped.is_none()
            && let Some(below) = self.trial(rates[0], steps, watch)?
            && below.tried.validation < best.tried.validation
        {
            best = below;
        }
        if best.tried.validation.is_finite() {
            self.state.rate = best.tried.rate;
        }
        if best.tried.validation < self.state.before {
            (self.parameters, self.optimizer) = (best.parameters, best.optimizer);
        }
        self.state.began = self.seconds();
        Ok(self.report.stopped.is_none())
    }

    /// A short run at this rate, after which the run is as before it; `None` where there is no time for it, or it was
    /// interrupted.
    fn trial(&mut self, rate: f64, steps: usize, watch: &mut dyn FnMut(&Status) -> bool) -> Result<Option<Trial>> {
        let before = (self.parameters.clone(), self.optimizer.clone(), self.random.clone());
        let (start, mut step, mut done, mut failed) = (Instant::now(), 0, 0.0f64, false);
        let most = (steps as f64 * SHARE).max(LEAST_STEPS as f64);
        let seconds = self.options.minutes.map_or(f64::INFINITY, |m| 60.0 * m * SHARE);
        let mut in_time = true;
        while done < 1.0 && in_time && !failed {
            let batch = self.next_batch();
            let loss = self.step(&batch, (rate * rate_at(done, WARM_UP)) as f32, 0.0)?;
            failed = loss.is_none();
            step += 1;
            let passed = start.elapsed().as_secs_f64();
            in_time = passed / step as f64 * LEAST_STEPS as f64 <= seconds;
            done = (step as f64 / most).max(passed / seconds);
            let (seconds, best) = (self.seconds(), self.state.best);
            let status = Status { step: 0, steps, done: 0.0, seconds, loss: loss.unwrap_or(f64::NAN), best };
            if !watch(&status) {
                self.report.stopped = Some("interrupted".to_string());
                in_time = false;
            }
        }
        let validation = if in_time && !failed { self.validate(&self.parameters)? } else { f64::INFINITY };
        let parameters = std::mem::replace(&mut self.parameters, before.0);
        let optimizer = std::mem::replace(&mut self.optimizer, before.1);
        self.random = before.2;
        self.state.queue.clear();
        if !in_time {
            return Ok(None);
        }
        let validation = if validation.is_finite() { validation } else { f64::INFINITY };
        let tried = TriedRate { rate, validation };
        self.report.tried_rates.push(tried);
        Ok(Some(Trial { tried, parameters, optimizer }))
    }
}
