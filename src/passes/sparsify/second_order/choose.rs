//! How many zeros each layer and each row gets.

use super::blocked::blocked;
use super::greedy::{Trace, trace};
use super::polish::polish;
use super::problem::Problem;
use super::shape::Shape;
use rayon::prelude::*;

/// Multiplications up to which a layer's weights are removed in the exact way.
const EXACT: f64 = 1e10;

/// How many zeros.
#[derive(Clone, Debug)]
pub enum Quota {
    /// This share of the weights.
    Share(f64),
    /// As many as the runs of the shape allow.
    Runs,
    /// Those where this holds, by row of the layer.
    Given(Vec<bool>),
}

/// What zeros cost in a layer: (loss as a share of what its outputs vary by, number of weights), one for each unit of each
/// block of rows. Losses of one block ascend in the order in which its units go.
pub type Curve = Vec<(f32, u32)>;

/// The rows, each multiplied with the root of its gain, so that errors of all of them count alike.
fn weighed(p: &Problem, w: &[f64]) -> Vec<f64> {
    w.iter().enumerate().map(|(k, x)| x * p.gains[k / p.columns].sqrt()).collect()
}

fn is_exact(p: &Problem, shape: &Shape) -> bool {
    let n = p.columns as f64;
    p.rows.div_ceil(shape.rows) as f64 * n * n * n / 6.0 <= EXACT
}

/// What each block of rows loses in turn.
fn traces(p: &Problem, optimum: &[f64], shape: &Shape) -> Vec<Trace> {
    let n = p.columns;
    let w = weighed(p, optimum);
    let mut traces: Vec<Trace> = w.par_chunks(n * shape.rows).map(|block| trace(block, n, &p.inverse, shape)).collect();
    for (block, t) in traces.iter_mut().enumerate() {
        // Per weight, and never less than what went before.
        let rows = shape.rows.min(p.rows - block * shape.rows);
        let mut most = 0f32;
        for (unit, loss) in t.order.iter().zip(&mut t.loss) {
            most = most.max(*loss / shape.weights(*unit as usize, rows) as f32);
            *loss = most;
        }
    }
    traces
}

/// The curve of a layer whose groups are `problems`.
pub fn curve(problems: &[Problem], shape: &Shape) -> Curve {
    let optima: Vec<Vec<f64>> = problems.iter().map(Problem::optimum).collect();
    let energy: f64 = problems.iter().zip(&optima).map(|(p, w)| p.energy(w)).sum();
    let by = 1.0 / energy.max(f64::MIN_POSITIVE);
    let mut curve = vec![];
    for (p, w) in problems.iter().zip(&optima) {
        let blocks = |k: usize| shape.rows.min(p.rows - k * shape.rows);
        if is_exact(p, shape) {
            for (k, t) in traces(p, w, shape).iter().enumerate() {
                let item = |(u, l): (&u32, &f32)| (f64::from(*l) * by, shape.weights(*u as usize, blocks(k)));
                curve.extend(t.order.iter().zip(&t.loss).map(item).map(|(l, n)| (l as f32, n as u32)));
            }
            continue;
        }
        // What each would cost alone, after the best fit of the others.
        let n = p.columns;
        let w = weighed(p, w);
        for (k, block) in w.chunks(n * shape.rows).enumerate() {
            for unit in 0..shape.units.len() {
                let one = |w: &[f64], c: usize| w[c] * w[c] / p.inverse[c * (n + 1)];
                let loss: f64 = block.chunks(n).flat_map(|w| shape.units[unit].iter().map(move |&c| one(w, c))).sum();
                let weights = shape.weights(unit, blocks(k));
                curve.push(((loss / weights as f64 * by) as f32, weights as u32));
            }
        }
    }
    curve
}

/// The share of each layer's weights that goes where `share` of all together do, for the least sum of losses.
pub fn share_of(curves: &[Curve], share: f64) -> Vec<f64> {
    let size = |c: &Curve| c.iter().map(|(_, n)| u64::from(*n)).sum::<u64>();
    let total: u64 = curves.iter().map(size).sum();
    let mut all: Vec<(f32, u32, u32)> =
        curves.iter().zip(0..).flat_map(|(c, k)| c.iter().map(move |&(loss, n)| (loss, k, n))).collect();
    all.par_sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let (mut room, mut gone) = (share * total as f64, vec![0u64; curves.len()]);
    for (_, k, n) in all {
        if room < f64::from(n) / 2.0 {
            break;
        }
        room -= f64::from(n);
        gone[k as usize] += u64::from(n);
    }
    curves.iter().zip(gone).map(|(c, gone)| gone as f64 / size(c).max(1) as f64).collect()
}

/// The rows of a layer whose groups are `problems`, with its zeros; all rows of a group after each other.
pub fn solve(problems: &[Problem], shape: &Shape, quota: &Quota) -> Vec<f64> {
    let optima: Vec<Vec<f64>> = problems.iter().map(Problem::optimum).collect();
    let exact = problems.iter().all(|p| is_exact(p, shape));
    let mut rows = vec![];
    let keeps = match quota {
        Quota::Share(share) if exact => masks(problems, &optima, shape, Some(*share)),
        Quota::Runs if exact => masks(problems, &optima, shape, None),
        Quota::Given(gone) => {
            let mut rest = gone.iter();
            problems.iter().map(|p| rest.by_ref().take(p.rows * p.columns).map(|g| !g).collect()).collect()
        }
        Quota::Share(_) | Quota::Runs => {
            let share = if let Quota::Share(share) = quota { *share } else { 0.0 };
            for (p, optimum) in problems.iter().zip(&optima) {
                let (keep, start) = blocked(p, optimum, shape, share);
                rows.extend(polish(p, &start, &keep));
            }
            return rows;
        }
    };
    for ((p, optimum), keep) in problems.iter().zip(&optima).zip(&keeps) {
        rows.extend(polish(p, optimum, keep));
    }
    rows
}

/// What stays, by group: the units with the least loss of all groups go, or where no share is given all that may.
fn masks(problems: &[Problem], optima: &[Vec<f64>], shape: &Shape, share: Option<f64>) -> Vec<Vec<bool>> {
    let all: Vec<Vec<Trace>> = problems.iter().zip(optima).map(|(p, w)| traces(p, w, shape)).collect();
    // (loss, group, block, step): steps of a block stay in their order.
    let mut steps: Vec<(f32, u32, u32, u32)> = vec![];
    for (g, traces) in all.iter().enumerate() {
        for (b, t) in traces.iter().enumerate() {
            steps.extend(t.loss.iter().zip(0..).map(|(&loss, k)| (loss, g as u32, b as u32, k)));
        }
    }
    steps.par_sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2, a.3).cmp(&(b.1, b.2, b.3))));
    let weights: usize = problems.iter().map(|p| p.rows * p.columns).sum();
    let mut room = share.map_or(f64::INFINITY, |s| s * weights as f64);
    let mut keeps: Vec<Vec<bool>> = problems.iter().map(|p| vec![true; p.rows * p.columns]).collect();
    for (_, g, b, k) in steps {
        let (g, b) = (g as usize, b as usize);
        let p = &problems[g];
        let rows = b * shape.rows..((b + 1) * shape.rows).min(p.rows);
        let unit = all[g][b].order[k as usize] as usize;
        let size = shape.weights(unit, rows.len()) as f64;
        if room < size / 2.0 {
            break;
        }
        room -= size;
        for r in rows {
            shape.units[unit].iter().for_each(|c| keeps[g][r * p.columns + c] = false);
        }
    }
    keeps
}

#[cfg(test)]
mod tests {
    use super::super::problem::tests::problem;
    use super::*;

    #[test]
    fn shares_follow_the_losses() {
        let cheap: Curve = (0..10).map(|k| (0.01 * k as f32, 1)).collect();
        let dear: Curve = (0..10).map(|k| (0.05 + 0.1 * k as f32, 1)).collect();
        assert_eq!(share_of(&[cheap, dear], 0.5), [0.9, 0.1]);
        assert_eq!(share_of(&[vec![(0.5, 4), (0.1, 4)], vec![]], 0.5), [0.5, 0.0]);
    }

    #[test]
    fn a_share_is_exact_and_better_than_by_magnitude() {
        let (p, w) = problem(4, 20);
        let shape = Shape::new(20, 1, None, None);
        let rows = solve(std::slice::from_ref(&p), &shape, &Quota::Share(0.5));
        assert_eq!(rows.iter().filter(|x| **x == 0.0).count(), 40);
        let optimum = p.optimum();
        let lost = |w: &[f64]| p.energy(&w.iter().zip(&optimum).map(|(a, b)| a - b).collect::<Vec<_>>());
        let mut order: Vec<usize> = (0..80).collect();
        order.sort_by(|&a, &b| w[a].abs().total_cmp(&w[b].abs()));
        let mut gone = vec![false; 80];
        order[..40].iter().for_each(|&k| gone[k] = true);
        let fitted = solve(std::slice::from_ref(&p), &shape, &Quota::Given(gone.clone()));
        let cut: Vec<f64> = w.iter().zip(&gone).map(|(x, g)| if *g { 0.0 } else { f64::from(*x) }).collect();
        assert!(lost(&rows) < lost(&fitted) && lost(&fitted) < lost(&cut));
        assert_eq!(curve(std::slice::from_ref(&p), &shape).len(), 80);
    }

    #[test]
    fn patterns_hold_and_what_is_large_goes_column_by_column() {
        let (p, _) = problem(2, 16);
        let shape = Shape::new(16, 1, None, Some("1:4".parse().unwrap()));
        let rows = solve(std::slice::from_ref(&p), &shape, &Quota::Runs);
        assert!(rows.chunks(4).all(|run| run.iter().filter(|x| **x != 0.0).count() == 1));
    }
}
