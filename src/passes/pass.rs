//! What a pass is.

use crate::error::Result;
use crate::ir::Model;
use serde::Serialize;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

/// How far a pass may move the outputs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Bit for bit the same.
    Exact,
    /// The same up to the rounding of another order of operations.
    Rounding,
    /// A declared loss (quantization, pruning).
    Lossy,
}

/// Why something was, or was not, done.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Note {
    /// The pass that says it.
    pub pass: String,
    /// The node or value it is about; empty where it is about the model.
    pub subject: String,
    /// What, in words.
    pub text: String,
}

/// What a pass did.
#[derive(Clone, Default, Debug)]
pub struct Outcome {
    /// Patches applied.
    pub changes: usize,
    /// The same by rule, where the pass has several.
    pub rules: BTreeMap<&'static str, usize>,
    /// Why not more.
    pub notes: Vec<Note>,
}

/// What a pass may ask for while it runs.
#[derive(Default)]
pub struct PassContext {
    fuel: Option<Cell<usize>>,
    burnt: Cell<usize>,
    last: RefCell<String>,
    /// Rules that must not fire.
    pub disabled: BTreeSet<String>,
}

impl PassContext {
    /// A context that stops applying patches after `fuel` of them, for finding the patch that breaks something.
    pub fn with_fuel(fuel: Option<usize>) -> Self {
        Self { fuel: fuel.map(Cell::new), ..Self::default() }
    }

    /// Whether `rule` may apply one more patch; uses up a unit of fuel.
    pub fn burn(&self, rule: &str) -> bool {
        if let Some(fuel) = &self.fuel {
            let left = fuel.get();
            if left == 0 {
                return false;
            }
            fuel.set(left - 1);
        }
        self.burnt.set(self.burnt.get() + 1);
        if self.fuel.is_some() {
            *self.last.borrow_mut() = rule.to_string();
        }
        true
    }

    /// Patches applied so far.
    pub fn burnt(&self) -> usize {
        self.burnt.get()
    }

    /// The rule that applied the last patch, where fuel is limited.
    pub fn last_rule(&self) -> String {
        self.last.borrow().clone()
    }
}

/// A step of the pipeline.
pub trait Pass {
    /// For example `fold_batch_norm`.
    fn name(&self) -> &'static str;

    /// How far it may move the outputs.
    fn effect(&self) -> Effect;

    /// Runs it over the model.
    ///
    /// # Errors
    /// The model stays as it was: the manager rolls back.
    fn run(&self, model: &mut Model, cx: &PassContext) -> Result<Outcome>;
}
