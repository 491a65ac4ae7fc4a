//! Exact greedy removal: after each weight that goes, all others are as good as they can be.

use super::shape::Shape;
use crate::math::cholesky;

/// What one block of rows loses, unit by unit.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Units in the order in which they go.
    pub order: Vec<u32>,
    /// What each of them adds to the error.
    pub loss: Vec<f32>,
}

/// Rows while columns are removed from them: at any time the best ones without the columns that are gone.
pub struct Removal {
    /// Row length.
    stride: usize,
    left: usize,
    /// The inverse of the second moments of the columns that are left, in the lower triangle of the leading part.
    a: Vec<f32>,
    /// Rows of weights, `stride` long.
    w: Vec<f32>,
    /// Column at each position, and position of each column.
    column: Vec<usize>,
    position: Vec<usize>,
    pivot: Vec<f32>,
}

/// Removes units from rows that have their zeros in common, least loss first, until none is left that may go (Frantar and
/// Alistarh, Optimal Brain Compression, 2022, algorithm 1: exact for the squared error, one row of weights or several).
///
/// `w` is `[rows, columns]` and optimal at first; `inverse` is `[columns, columns]`.
pub fn trace(w: &[f64], columns: usize, inverse: &[f64], shape: &Shape) -> Trace {
    let mut state = Removal::new(w, columns, inverse);
    let mut units: Vec<usize> = (0..shape.units.len()).collect();
    let mut room = shape.runs.as_ref().map(|(_, most)| most.clone()).unwrap_or_default();
    let mut trace = Trace::default();
    loop {
        if let Some((run, _)) = &shape.runs {
            units.retain(|&u| room[run[u]] > 0);
        }
        let scores = units.iter().enumerate().map(|(k, &u)| (k, state.loss(&shape.units[u])));
        let Some((k, loss)) = scores.min_by(|a, b| a.1.total_cmp(&b.1).then(units[a.0].cmp(&units[b.0]))) else {
            return trace;
        };
        let unit = units.swap_remove(k);
        shape.units[unit].iter().for_each(|&c| state.remove(c));
        if let Some((run, _)) = &shape.runs {
            room[run[unit]] -= 1;
        }
        trace.order.push(unit as u32);
        trace.loss.push(loss);
    }
}

impl Removal {
    /// Nothing removed yet: `w` is `[rows, columns]` and optimal, `inverse` is that of the second moments.
    pub fn new(w: &[f64], columns: usize, inverse: &[f64]) -> Self {
        Self {
            stride: columns,
            left: columns,
            a: inverse.iter().map(|&x| x as f32).collect(),
            w: w.iter().map(|&x| x as f32).collect(),
            column: (0..columns).collect(),
            position: (0..columns).collect(),
            pivot: vec![0.0; columns],
        }
    }

    fn at(&self, i: usize, j: usize) -> f32 {
        self.a[i.max(j) * self.stride + i.min(j)]
    }

    /// What the rows lose with these columns, which are still there: `w_B (C^-1)_BB^-1 w_B^T`.
    pub fn loss(&self, columns: &[usize]) -> f32 {
        let at = |c: usize| self.position[c];
        let alone = |c: usize| {
            let p = at(c);
            let squares: f32 = self.w.chunks(self.stride).map(|w| w[p] * w[p]).sum();
            squares / self.at(p, p).max(f32::MIN_POSITIVE)
        };
        if let [c] = *columns {
            return alone(c);
        }
        let n = columns.len();
        let element = |k: usize| f64::from(self.at(at(columns[k / n]), at(columns[k % n])));
        let mut factor: Vec<f64> = (0..n * n).map(element).collect();
        if !cholesky(&mut factor, n) {
            return columns.iter().map(|&c| alone(c)).sum(); // rounding has eaten up what they have in common
        }
        let mut x = vec![0f64; n];
        let mut total = 0.0;
        // `b A^-1 b^T` is the square of `L^-1 b`.
        for w in self.w.chunks(self.stride) {
            for i in 0..n {
                let sum: f64 = factor[i * n..i * n + i].iter().zip(&x).map(|(l, x)| l * x).sum();
                x[i] = (f64::from(w[at(columns[i])]) - sum) / factor[i * n + i];
                total += x[i] * x[i];
            }
        }
        total as f32
    }

    /// Removes a column; the rows make up for it.
    pub fn remove(&mut self, column: usize) {
        let (p, n, last) = (self.position[column], self.left, self.left - 1);
        for k in 0..n {
            self.pivot[k] = self.at(p, k);
        }
        let by = 1.0 / self.pivot[p].max(f32::MIN_POSITIVE);
        for w in self.w.chunks_mut(self.stride) {
            let f = w[p] * by;
            w[..n].iter_mut().zip(&self.pivot).for_each(|(w, a)| *w -= f * a);
            w[p] = w[last];
        }
        // The last one takes its place.
        if p != last {
            for k in (0..last).filter(|&k| k != p) {
                let moved = self.at(last, k);
                self.a[p.max(k) * self.stride + p.min(k)] = moved;
            }
            self.a[p * self.stride + p] = self.at(last, last);
            self.pivot[p] = self.pivot[last];
            self.column[p] = self.column[last];
            self.position[self.column[p]] = p;
        }
        self.left = last;
        for i in 0..last {
            let f = self.pivot[i] * by;
            let row = &mut self.a[i * self.stride..][..=i];
            row.iter_mut().zip(&self.pivot).for_each(|(a, x)| *a -= f * x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::polish::polish;
    use super::super::problem::tests::problem;
    use super::*;

    /// Each loss is what the best fit without the units removed so far costs more than the one before.
    #[test]
    fn losses_are_those_of_the_best_fits() {
        let n = 12;
        for shape in [Shape::new(n, 1, None, None), Shape::new(n, 1, Some("2x3".parse().unwrap()), None)] {
            let (p, _) = problem(shape.rows, n);
            let w = p.optimum();
            let t = trace(&w, n, &p.inverse, &shape);
            assert_eq!(t.order.len(), shape.units.len());
            let mut keep = vec![true; shape.rows * n];
            let mut lost = 0.0;
            for (&unit, &loss) in t.order.iter().zip(&t.loss).take(shape.units.len() - 1) {
                let gone = &shape.units[unit as usize];
                gone.iter().for_each(|&c| (0..shape.rows).for_each(|r| keep[r * n + c] = false));
                let fitted = polish(&p, &w, &keep);
                // At the best fit the error grows by the energy of the difference.
                let change: Vec<f64> = w.iter().zip(&fitted).map(|(a, b)| a - b).collect();
                let total = p.energy(&change);
                assert!((total - lost - f64::from(loss)).abs() < 2e-3 * total, "{total} after {lost} and {loss}");
                lost = total;
            }
        }
    }

    #[test]
    fn runs_keep_what_they_must() {
        let shape = Shape::new(8, 1, None, Some("2:4".parse().unwrap()));
        let (p, _) = problem(1, 8);
        let t = trace(&p.optimum(), 8, &p.inverse, &shape);
        assert_eq!(t.order.len(), 4);
        assert_eq!(t.order.iter().filter(|&&u| u < 4).count(), 2);
    }
}
