//! Which channels go.

use super::budget::Budget;
use super::importance::{Importance, Measure, normalized};
use super::slice::Cut;
use crate::analysis::axis_groups::AxisGroups;
use crate::error::{Error, Result};
use crate::ir::Model;
use crate::passes::Selection;
use serde::{Deserialize, Serialize};

/// Settings of pruning. Every field has the default that the command line has.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PruneOptions {
    /// How much goes.
    pub target: Target,
    /// Rank the channels of all layers together instead of taking the same share of each.
    pub global: bool,
    /// How much a channel matters.
    pub importance: Measure,
    /// Seed of random importance.
    pub seed: u64,
    /// Kept channels are a multiple of this, where a layer has as many.
    pub round_to: usize,
    /// At least this many channels of a layer stay.
    pub min_channels: usize,
    /// Cut axes too that are normalized or reduced over.
    pub allow_inexact: bool,
    /// Get to the target in this many rounds, each scoring (and repairing) what the one before left.
    pub iterations: usize,
    /// Refit the weights that lose inputs, and re-estimate the statistics of BatchNormalization, on data without labels.
    pub repair: bool,
    /// Only layers that match one of these (name, glob over names, or operator type); empty = all.
    pub include: Vec<String>,
    /// No layer that matches one of these.
    pub exclude: Vec<String>,
}

/// How much goes; every number is in 0..1.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// This share of the channels goes.
    Ratio(f64),
    /// This share of the multiply-accumulates stays.
    Macs(f64),
    /// This share of the parameters stays.
    Params(f64),
    /// This share of the time stays, measured in tract.
    Latency(f64),
}

impl Target {
    /// What a round of several is to get to, of what the round before it left: equal steps of the whole.
    pub fn of_round(self, round: usize, rounds: usize) -> Self {
        let left = |goal: f64| {
            let after = |k: usize| 1.0 - (1.0 - goal) * k as f64 / rounds.max(1) as f64;
            if after(round) > 0.0 { after(round + 1) / after(round) } else { 1.0 }
        };
        match self {
            Self::Ratio(gone) => Self::Ratio(1.0 - left(1.0 - gone)),
            Self::Macs(goal) => Self::Macs(left(goal)),
            Self::Params(goal) => Self::Params(left(goal)),
            Self::Latency(goal) => Self::Latency(left(goal)),
        }
    }
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            target: Target::Ratio(0.5),
            global: false,
            importance: Measure::L2,
            seed: 0,
            round_to: 1,
            min_channels: 1,
            allow_inexact: false,
            iterations: 1,
            repair: false,
            include: vec![],
            exclude: vec![],
        }
    }
}

impl PruneOptions {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// A share outside of 0 to 1, a count of zero.
    pub fn check(&self) -> Result<()> {
        let (Target::Ratio(x) | Target::Macs(x) | Target::Params(x) | Target::Latency(x)) = self.target;
        if !(0.0..=1.0).contains(&x) {
            return Err(Error::usage(format!("a share must be between 0 and 1, not {x}")));
        }
        if self.round_to == 0 || self.min_channels == 0 || self.iterations == 0 {
            return Err(Error::usage("round-to, min-channels and iterations must be at least 1"));
        }
        Ok(())
    }
}

/// What was selected.
#[derive(Clone, Debug, Default)]
pub struct Selected {
    /// What stays.
    pub cut: Cut,
    /// Channels that go, by group.
    pub removed: Vec<Vec<usize>>,
    /// Why not what was asked for.
    pub note: Option<String>,
}

/// One group that may be cut.
struct Candidate {
    group: usize,
    /// Classes, least important first.
    order: Vec<usize>,
    scores: Vec<f64>,
    /// Elements of an axis that a class stands for.
    width: usize,
}

/// Selects by the options. The model's types are inferred.
///
/// # Errors
/// Patterns that are wrong or match nothing; weights that are no numbers.
pub fn select(
    model: &Model,
    groups: &AxisGroups,
    importance: &dyn Importance,
    options: &PruneOptions,
) -> Result<Selected> {
    options.check()?;
    let budget = Budget::new(model);
    let (goal, macs) = match options.target {
        Target::Ratio(ratio) => (ratio, None),
        Target::Macs(left) => (left, Some(true)),
        Target::Params(left) => (left, Some(false)),
        Target::Latency(_) => {
            return Err(Error::unsupported("a share of the time is for whoever can execute the model"));
        }
    };
    let cost = |cut: &Cut| if macs == Some(true) { budget.macs(cut) } else { budget.params(cut) };
    let whole = cost(&Cut::default());
    // What a channel saves of what is to be saved: losses are only worth comparing for the same savings (as Liu et al., Group
    // Fisher Pruning, 2021, section 3.3 divides by memory).
    let price = |group: usize| {
        let one = Cut::without(&model.graph, groups, [(group, 0)]);
        whole.saturating_sub(cost(&one)).max(1) as f64
    };
    let price: Option<&dyn Fn(usize) -> f64> = if macs.is_some() { Some(&price) } else { None };
    let candidates = candidates(model, groups, importance, (options, price))?;
    let at = |strength: f64| -> (Vec<(usize, usize)>, Cut) {
        let removed: Vec<(usize, usize)> =
            counts(&candidates, options, strength).into_iter().flat_map(|(c, n)| first(c, n)).collect();
        let cut = Cut::without(&model.graph, groups, removed.iter().copied());
        (removed, cut)
    };
    if macs.is_none() {
        return Ok(finish(groups, at(goal), None));
    }
    let bound = goal * whole as f64;
    // More strength never costs more: bisection to the least that is enough.
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..24 {
        let middle = (low + high) / 2.0;
        if cost(&at(middle).1) as f64 > bound { low = middle } else { high = middle }
    }
    let result = at(high);
    let share = cost(&result.1) as f64 / whole.max(1) as f64;
    let note = (share > goal + 1e-9).then(|| {
        format!("{:.1}% stay, although {:.1}% were asked for: nothing more may go", 100.0 * share, 100.0 * goal)
    });
    Ok(finish(groups, result, note))
}

fn finish(groups: &AxisGroups, (removed, cut): (Vec<(usize, usize)>, Cut), note: Option<String>) -> Selected {
    let mut by_group = vec![vec![]; groups.groups.len()];
    removed.into_iter().for_each(|(g, c)| by_group[g].push(c));
    by_group.iter_mut().for_each(|list: &mut Vec<usize>| list.sort_unstable());
    Selected { cut, removed: by_group, note }
}

fn first(candidate: &Candidate, n: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
    candidate.order.iter().take(n).map(|&c| (candidate.group, c))
}

fn candidates(
    model: &Model,
    groups: &AxisGroups,
    importance: &dyn Importance,
    (options, price): (&PruneOptions, Option<&dyn Fn(usize) -> f64>),
) -> Result<Vec<Candidate>> {
    let selection = Selection::of(&options.include, &options.exclude)?;
    selection.check(&model.graph)?;
    let mut found = vec![];
    for (k, group) in groups.groups.iter().enumerate() {
        let refused = group.node.is_some_and(|n| selection.refuses(model.graph.node(n)).is_some());
        if group.barrier.is_some() || group.classes.len() < 2 || refused {
            continue;
        }
        let scores = importance.scores(model, groups, group)?;
        let scores = match price {
            _ if !importance.comparable() => normalized(scores),
            Some(price) => {
                let price = price(k);
                scores.into_iter().map(|s| s / price).collect()
            }
            None => scores,
        };
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)));
        found.push(Candidate { group: k, order, scores, width: group.multiplicity(&model.graph) });
    }
    Ok(found)
}

/// How many classes of each candidate go: the share `strength` of each, or of all together by score.
fn counts<'a>(candidates: &'a [Candidate], options: &PruneOptions, strength: f64) -> Vec<(&'a Candidate, usize)> {
    let threshold = options.global.then(|| {
        let mut all: Vec<f64> = candidates.iter().flat_map(|c| &c.scores).copied().collect();
        all.sort_by(f64::total_cmp);
        let n = (strength * all.len() as f64).round() as usize;
        if n == 0 { f64::NEG_INFINITY } else { all.get(n - 1).copied().unwrap_or(f64::INFINITY) }
    });
    let count = |c: &Candidate| match threshold {
        Some(limit) => c.scores.iter().filter(|&&s| s <= limit).count(),
        None => (strength * c.order.len() as f64).round() as usize,
    };
    candidates.iter().map(|c| (c, rounded(c, count(c), options))).collect()
}

/// So that what stays is a multiple of `round_to` elements and not less than `min_channels`.
fn rounded(c: &Candidate, removed: usize, options: &PruneOptions) -> usize {
    let all = c.order.len();
    let least = options.min_channels.div_ceil(c.width).clamp(1, all);
    let mut left = all.saturating_sub(removed).max(least);
    while left < all && !(left * c.width).is_multiple_of(options.round_to) {
        left += 1;
    }
    all - left
}
