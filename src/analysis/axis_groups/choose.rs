//! Where an axis runs over combinations of others, one of them can be cut and `flat` with it; this picks which.

use super::Place;
use super::atoms::Barrier;
use super::build::{Builder, Choice};
use std::collections::HashSet;

/// Makes all choices. An axis that is a barrier anyway decides by itself; then come axes over independent problems (heads
/// of attention), then the axis with more classes, then the outer one.
pub(super) fn choose(b: &mut Builder) {
    let mut open: Vec<Choice> = std::mem::take(&mut b.choices);
    while !open.is_empty() {
        let before = open.len();
        open.retain(|choice| !forced(b, choice));
        if open.len() < before {
            continue;
        }
        let batches = batch_classes(b);
        let preferred = |b: &mut Builder, c: &Choice| c.factors.iter().any(|(f, _)| is_batch(b, &batches, *f));
        let at = (0..open.len()).find(|&k| preferred(b, &open[k])).unwrap_or(0);
        let choice = open.remove(at);
        let mut best: Option<(bool, usize, usize)> = None;
        for (k, (factor, _)) in choice.factors.iter().enumerate() {
            if b.atoms.all_barred(*factor).is_some() {
                continue;
            }
            let score = (is_batch(b, &batches, *factor), b.atoms.classes(*factor), k);
            if best.is_none_or(|(batch, classes, _)| (score.0, score.1) > (batch, classes)) {
                best = Some(score);
            }
        }
        if let Some((_, _, k)) = best {
            take(b, &choice, k);
        }
    }
}

fn batch_classes(b: &mut Builder) -> HashSet<u32> {
    let firsts: Vec<u32> = b.batches.iter().filter_map(|&p| b.atoms.axis(p)).map(|(first, _)| first).collect();
    firsts.into_iter().map(|first| b.atoms.find(first)).collect()
}

fn is_batch(b: &mut Builder, batches: &HashSet<u32>, place: Place) -> bool {
    let first = b.atoms.axis(place).map(|(first, _)| first);
    first.is_some_and(|first| batches.contains(&b.atoms.find(first)))
}

/// Makes the choice where there is only one.
fn forced(b: &mut Builder, choice: &Choice) -> bool {
    if let Some(barrier) = b.atoms.all_barred(choice.flat) {
        for (factor, _) in &choice.factors {
            b.atoms.bar(*factor, None, &barrier);
        }
        return true;
    }
    let viable: Vec<usize> =
        (0..choice.factors.len()).filter(|&k| b.atoms.all_barred(choice.factors[k].0).is_none()).collect();
    match viable[..] {
        [] => {
            let first = choice.factors.first().and_then(|(f, _)| b.atoms.all_barred(*f));
            let barrier = first.unwrap_or_else(|| Barrier { reason: choice.label.clone(), inexact: false });
            b.atoms.bar(choice.flat, None, &barrier);
            true
        }
        [k] => {
            take(b, choice, k);
            true
        }
        _ => false,
    }
}

/// Ties `flat` to one factor; nothing of the others may go.
fn take(b: &mut Builder, choice: &Choice, k: usize) {
    let reason = format!("{} joins it with an axis that is cut instead", choice.label);
    let barrier = Barrier { reason, inexact: false };
    for (i, (factor, _)) in choice.factors.iter().enumerate() {
        if i != k {
            b.atoms.bar(*factor, None, &barrier);
        }
    }
    let (factor, inner) = choice.factors[k];
    let (Some((flat, size)), Some((first, classes))) = (b.atoms.axis(choice.flat), b.atoms.axis(factor)) else {
        return;
    };
    for i in 0..size {
        b.atoms.join(flat + i, first + (i / inner as u32) % classes.max(1));
    }
}
