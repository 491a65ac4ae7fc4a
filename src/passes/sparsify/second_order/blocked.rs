//! Removal column by column, for layers that are too large for the exact way.

use super::problem::Problem;
use super::shape::Shape;
use crate::math::cholesky;
use rayon::prelude::*;

/// Columns among which zeros are chosen at once.
const BLOCK: usize = 128;

/// Which weights stay, after each column that is passed made those behind it make up for its zeros (Frantar and Alistarh,
/// SparseGPT, 2023, algorithm 1), and the weights then; `share` of the weights go where the shape has no runs.
pub fn blocked(p: &Problem, optimum: &[f64], shape: &Shape, share: f64) -> (Vec<bool>, Vec<f64>) {
    let n = p.columns;
    let order = order(p, shape);
    // With `C^-1 = L L^T` in that order, column `k` of `L` says what a change at `k` asks of those behind it.
    let mut l: Vec<f64> = (0..n * n).map(|at| p.inverse[order[at / n].1 * n + order[at % n].1]).collect();
    let mut keep = vec![true; p.rows * n];
    let mut w: Vec<f64> = optimum.chunks(n).flat_map(|row| order.iter().map(|&(_, c)| row[c])).collect();
    if cholesky(&mut l, n) {
        let mut owed = 0.0;
        for (start, end) in spans(&order, shape) {
            let gone = choose(&w, (p, &l), shape, (&order[start..end], start), (share, &mut owed));
            let rows = w.par_chunks_mut(n).zip(keep.par_chunks_mut(n)).enumerate();
            rows.for_each(|(r, (w, keep))| {
                for k in (start..end).filter(|k| gone[r / shape.rows * (end - start) + k - start]) {
                    keep[k] = false;
                    let f = w[k] / l[k * n + k];
                    (k..n).for_each(|j| w[j] -= f * l[j * n + k]);
                    w[k] = 0.0;
                }
            });
        }
    }
    let back = |of: &dyn Fn(usize, usize) -> f64| {
        let mut out = vec![0f64; p.rows * n];
        for r in 0..p.rows {
            order.iter().enumerate().for_each(|(k, &(_, c))| out[r * n + c] = of(r, k));
        }
        out
    };
    let weights = back(&|r, k| if keep[r * n + k] { w[r * n + k] } else { 0.0 });
    let kept = back(&|r, k| f64::from(u8::from(keep[r * n + k])));
    (kept.into_iter().map(|k| k > 0.5).collect(), weights)
}

/// (unit, column), in the order in which columns are passed: units of a run, and columns of a unit, after each other; where
/// there are only single columns, those first whose inputs are large.
fn order(p: &Problem, shape: &Shape) -> Vec<(usize, usize)> {
    let mut units: Vec<usize> = (0..shape.units.len()).collect();
    match &shape.runs {
        Some((run, _)) => units.sort_by_key(|&u| (run[u], u)),
        None => {
            let energy = |u: usize| shape.units[u].iter().map(|&c| p.c[c * (p.columns + 1)]).sum::<f64>();
            units.sort_by(|&a, &b| energy(b).total_cmp(&energy(a)).then(a.cmp(&b)));
        }
    }
    units.into_iter().flat_map(|u| shape.units[u].iter().map(move |&c| (u, c))).collect()
}

/// Blocks of about [`BLOCK`] columns that cut no unit and no run.
fn spans(order: &[(usize, usize)], shape: &Shape) -> Vec<(usize, usize)> {
    let bundle = |k: usize| shape.runs.as_ref().map_or(order[k].0, |(run, _)| run[order[k].0]);
    let mut spans = vec![];
    let mut start = 0;
    for k in 1..=order.len() {
        if k == order.len() || (k - start >= BLOCK && bundle(k) != bundle(k - 1)) {
            spans.push((start, k));
            start = k;
        }
    }
    spans
}

/// Which columns of a span go, for each block of rows: `[blocks, columns]`. `owed` is what rounding left undone before.
fn choose(
    w: &[f64],
    (p, l): (&Problem, &[f64]),
    shape: &Shape,
    (order, start): (&[(usize, usize)], usize),
    (share, owed): (f64, &mut f64),
) -> Vec<bool> {
    let (n, width) = (p.columns, order.len());
    let blocks = p.rows.div_ceil(shape.rows);
    // (loss per weight, block, first column of the unit, columns)
    let mut all: Vec<(f64, usize, usize, usize)> = vec![];
    for block in 0..blocks {
        let rows = block * shape.rows..((block + 1) * shape.rows).min(p.rows);
        let mut k = 0;
        while k < width {
            let size = order[k..].iter().take_while(|o| o.0 == order[k].0).count();
            let cost = |r: usize, j: usize| p.gains[r] * (w[r * n + start + j] / l[(start + j) * (n + 1)]).powi(2);
            let loss: f64 = rows.clone().map(|r| (k..k + size).map(|j| cost(r, j)).sum::<f64>()).sum();
            all.push((loss / (size * rows.len()) as f64, block, k, size));
            k += size;
        }
    }
    let mut gone = vec![false; blocks * width];
    let by_loss = |a: &(f64, usize, usize, usize), b: &(f64, usize, usize, usize)| {
        a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2)))
    };
    all.sort_by(by_loss);
    let mut room: Vec<Vec<usize>> = shape.runs.iter().flat_map(|(_, most)| vec![most.clone(); blocks]).collect();
    *owed += share * (p.rows * width) as f64;
    for (_, block, first, size) in all {
        match &shape.runs {
            Some((run, _)) => {
                let left = &mut room[block][run[order[first].0]];
                if *left == 0 {
                    continue;
                }
                *left -= 1;
            }
            None => {
                let weights = size * (((block + 1) * shape.rows).min(p.rows) - block * shape.rows);
                if *owed < weights as f64 / 2.0 {
                    break;
                }
                *owed -= weights as f64;
            }
        }
        gone[block * width + first..][..size].fill(true);
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::super::polish::polish;
    use super::super::problem::tests::problem;
    use super::*;

    #[test]
    fn the_share_is_kept_and_the_rest_makes_up_for_it() {
        let n = 40;
        let (p, _) = problem(6, n);
        let optimum = p.optimum();
        let (keep, fitted) = blocked(&p, &optimum, &Shape::new(n, 1, None, None), 0.6);
        assert_eq!(keep.iter().filter(|k| !**k).count(), 6 * n * 6 / 10);
        assert!(fitted.iter().zip(&keep).all(|(w, k)| *k || *w == 0.0));
        let lost = |w: &[f64]| p.energy(&w.iter().zip(&optimum).map(|(a, b)| a - b).collect::<Vec<_>>());
        let polished = polish(&p, &fitted, &keep);
        // Columns that were passed cannot make up for those behind them: that is what polishing adds.
        assert!(lost(&polished) < lost(&fitted), "{} after {}", lost(&polished), lost(&fitted));
    }

    #[test]
    fn runs_and_blocks_are_whole() {
        let n = 24;
        let (p, _) = problem(6, n);
        let optimum = p.optimum();
        let (keep, _) = blocked(&p, &optimum, &Shape::new(n / 2, 2, None, Some("2:4".parse().unwrap())), 0.0);
        for (row, tap) in (0..6).flat_map(|r| (0..2).map(move |t| (r, t))) {
            for run in 0..3 {
                let kept = (0..4).filter(|i| keep[row * n + (run * 4 + i) * 2 + tap]).count();
                assert_eq!(kept, 2, "run {run} of place {tap} in row {row}");
            }
        }
        let (keep, _) = blocked(&p, &optimum, &Shape::new(n, 1, Some("4x2".parse().unwrap()), None), 0.5);
        for (row, k) in (0..6).flat_map(|r| (0..n).map(move |k| (r, k))) {
            assert_eq!(keep[row * n + k], keep[row / 4 * 4 * n + k / 2 * 2], "{row}, {k}");
        }
        let gone = keep.iter().filter(|k| !**k).count();
        assert!(gone.abs_diff(6 * n / 2) <= 4, "{gone}");
    }
}
