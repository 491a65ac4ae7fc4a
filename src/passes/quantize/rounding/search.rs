//! The scale and zero point of a group of elements, and rounding to the nearest level.

use super::grid::{Grid, Levels, Partition, Rounded, Rows};
use rayon::prelude::*;

/// Candidates for where a symmetric range ends, for few bits and for 8.
const ENDS: usize = 32;
const ENDS_OF_8: usize = 16;

/// Candidates for either end of an asymmetric range.
const SIDES: usize = 9;

/// Smallest share of the largest element at which a range may end, for few bits and for 8.
const SHORTEST: f32 = 0.3;
const SHORTEST_OF_8: f32 = 0.75;

/// The scale and zero point with the least squared rounding error, each element weighted by `importance` where it is given:
/// for each of some ranges, the codes of the nearest levels, and then the scale that is best for those codes.
pub fn fit(values: &[f32], importance: Option<&[f32]>, levels: &Levels) -> (f32, i32) {
    let (low, high) = values.iter().fold((0f32, 0f32), |(l, h), &x| (l.min(x), h.max(x)));
    let weight = |k: usize| importance.map_or(1.0, |i| i[k]);
    let many = levels.high - levels.low > 100;
    let (steps, shortest) = if many { (ENDS_OF_8, SHORTEST_OF_8) } else { (ENDS, SHORTEST) };
    let mut best = Best { error: f32::INFINITY, scale: 1.0, zero: levels.zero.unwrap_or(levels.low) };
    match levels.zero {
        Some(zero) => {
            let reach = high.max(-low);
            for k in 0..steps {
                let end = reach * (1.04 - (1.04 - shortest) * k as f32 / (steps - 1) as f32);
                best.try_range(values, &weight, levels, end / (levels.high - zero) as f32, zero);
            }
        }
        None => {
            let share = |k: usize| 1.0 - (1.0 - shortest.max(0.5)) * k as f32 / (SIDES - 1) as f32;
            for (a, b) in (0..SIDES * SIDES).map(|k| (share(k / SIDES), share(k % SIDES))) {
                let scale = (b * high - a * low) / (levels.high - levels.low) as f32;
                let zero = levels.low.saturating_add((-a * low / scale).round_ties_even() as i32);
                best.try_range(values, &weight, levels, scale, zero.clamp(levels.low, levels.high));
            }
        }
    }
    (best.scale, best.zero)
}

struct Best {
    error: f32,
    scale: f32,
    zero: i32,
}

impl Best {
    fn try_range(&mut self, values: &[f32], weight: &impl Fn(usize) -> f32, levels: &Levels, scale: f32, zero: i32) {
        if !scale.is_normal() {
            return; // all zero, or denormal: any scale stores it
        }
        let inverse = 1.0 / scale;
        let (bottom, top) = ((levels.low - zero) as f32, (levels.high - zero) as f32);
        let (mut ww, mut wq, mut qq) = (0f32, 0f32, 0f32);
        for (k, &w) in values.iter().enumerate() {
            let q = (w * inverse).round_ties_even().clamp(bottom, top);
            let h = weight(k);
            ww += h * w * w;
            wq += h * w * q;
            qq += h * q * q;
        }
        let best = wq / qq;
        if !best.is_normal() || best <= 0.0 {
            return;
        }
        let error = ww - best * wq;
        if error < self.error {
            *self = Self { error, scale: best, zero };
        }
    }
}

/// Rounds every element to the nearest of the levels that [`fit`] finds for its group.
pub fn nearest(w: &Rows, partition: &Partition, importance: Option<&[f32]>, levels: &Levels) -> Rounded {
    let members = partition.members();
    let mut codes = vec![0i16; w.data.len()];
    let columns = w.columns.max(1);
    let rows = codes.par_chunks_mut(columns).zip(w.data.par_chunks(columns));
    let grids: Vec<Vec<(f32, i32)>> = rows
        .map(|(codes, row)| {
            let (mut values, mut weights) = (vec![], vec![]);
            let group = |columns: &Vec<usize>| {
                values.clear();
                values.extend(columns.iter().map(|&c| row[c]));
                weights.clear();
                weights.extend(importance.iter().flat_map(|i| columns.iter().map(|&c| i[c])));
                let (scale, zero) = fit(&values, importance.map(|_| &weights[..]), levels);
                for (&c, &x) in columns.iter().zip(&values) {
                    codes[c] = levels.code(x / scale, zero) as i16;
                }
                (scale, zero)
            };
            members.iter().map(group).collect()
        })
        .collect();
    let (scale, zero) = grids.into_iter().flatten().unzip();
    Rounded { codes, grid: Grid { groups: partition.groups, scale, zero } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::quantize::Eight;

    fn wave(n: usize) -> Vec<f32> {
        (0..n).map(|k| (k as f32 * 0.71).sin() + 0.4).collect()
    }

    fn error(values: &[f32], (scale, zero): (f32, i32), levels: &Levels) -> f32 {
        values.iter().map(|&w| (w - scale * (levels.code(w / scale, zero) - zero) as f32).powi(2)).sum()
    }

    #[test]
    fn the_fit_is_no_worse_than_the_full_range() {
        for bits in [2, 3, 4, 8] {
            let levels = Levels::new(bits, Eight::S8, true);
            let values = wave(40);
            let full = 1.4 / levels.high as f32;
            assert!(error(&values, fit(&values, None, &levels), &levels) <= error(&values, (full, 0), &levels) * 1.001);
        }
    }

    #[test]
    fn a_zero_point_of_its_own_saves_error_where_values_lie_on_one_side() {
        let values: Vec<f32> = wave(40).iter().map(|x| x.abs()).collect();
        let of = |symmetric| {
            let levels = Levels::new(4, Eight::U8, symmetric);
            error(&values, fit(&values, None, &levels), &levels)
        };
        assert!(of(false) < 0.4 * of(true), "{} and {}", of(false), of(true));
    }

    #[test]
    fn zero_is_exact() {
        let mut values = wave(30);
        values[7] = 0.0;
        let rows = Rows { rows: 1, columns: 30, data: values };
        for symmetric in [false, true] {
            let levels = Levels::new(4, Eight::U8, symmetric);
            let partition = Partition { of: (0..30).map(|k| k / 16).collect(), groups: 2 };
            let rounded = nearest(&rows, &partition, None, &levels);
            assert_eq!(rounded.values(&partition)[7], 0.0);
            assert!(rounded.codes.iter().all(|&c| (0..16).contains(&c)));
        }
    }

    #[test]
    fn groups_of_zeros_are_stored() {
        for symmetric in [false, true] {
            let levels = Levels::new(4, Eight::S8, symmetric);
            let rows = Rows { rows: 1, columns: 3, data: vec![0.0; 3] };
            let partition = Partition::whole(3);
            assert_eq!(nearest(&rows, &partition, None, &levels).values(&partition), [0.0; 3]);
        }
    }

    #[test]
    fn importance_decides() {
        let levels = Levels::new(2, Eight::S8, true);
        let values = [1.0, 0.25, 0.26, 0.24];
        let by = |importance: &[f32]| fit(&values, Some(importance), &levels).0;
        assert!(by(&[1.0, 0.0, 0.0, 0.0]) > 0.4);
        assert!(by(&[0.0, 1.0, 1.0, 1.0]) < 0.35);
    }
}
