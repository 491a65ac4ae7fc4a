//! Improving a rounded weight: codes one at a time, and scales all at once, in turns; neither can make it worse.

use super::gptq::Band;
use crate::math::{gemm, solve};

/// Turns of codes and scales.
const TURNS: usize = 3;

/// Sweeps over the codes in each turn; a sweep without a change ends them.
const SWEEPS: usize = 3;

/// Coordinate descent on the codes (Behdin et al., QuantEase, 2023) and least squares for the scales. Scales do not go
/// below `least`, per row.
pub(super) fn refine(band: &mut Band, least: &[f32]) {
    for _ in 0..TURNS {
        for _ in 0..SWEEPS {
            if sweep(band) == 0 {
                break;
            }
        }
        scales(band, least);
    }
    sweep(band);
}

/// Gives each element the code that is best where all others stay; returns how many changed.
fn sweep(band: &mut Band) -> usize {
    let n = band.objective.size;
    let h = &band.objective.h[..];
    let mut slope = vec![0f32; band.rows * n];
    gemm((band.rows, n, n), 1.0, (&band.error, (n, 1)), (h, (n, 1)), 0.0, (&mut slope, (n, 1)));
    let mut changes = 0;
    for (row, slope) in slope.chunks_mut(n.max(1)).enumerate() {
        for k in 0..n {
            let (at, grid) = (row * n + k, row * band.groups + band.group[k]);
            let (scale, zero, own) = (band.scale[grid], band.zero[grid], h[k * n + k]);
            let code = i32::from(band.codes[at]);
            let want = scale * (code - zero) as f32 + slope[k] / own;
            let new = band.levels.code(want / scale, zero);
            let step = scale * (new - code) as f32;
            // Zeros stay zero.
            if new == code || band.weight[at] == 0.0 || step * (step * own - 2.0 * slope[k]) >= 0.0 {
                continue;
            }
            changes += 1;
            band.codes[at] = new as i16;
            band.error[at] = band.weight[at] - scale * (new - zero) as f32;
            slope.iter_mut().zip(&h[k * n..][..n]).for_each(|(s, h)| *s -= step * h);
        }
    }
    changes
}

/// Gives each row the scales that are best for its codes.
fn scales(band: &mut Band, least: &[f32]) {
    let (n, groups) = (band.objective.size, band.groups);
    let h = &band.objective.h[..];
    let mut members = vec![vec![]; groups];
    band.group.iter().enumerate().for_each(|(column, &group)| members[group].push(column));
    for (row, &least) in least.iter().enumerate() {
        let codes = &band.codes[row * n..][..n];
        let zero = &band.zero[row * groups..][..groups];
        let centred: Vec<f32> = codes.iter().zip(band.group).map(|(&c, &g)| (i32::from(c) - zero[g]) as f32).collect();
        let weight = &band.weight[row * n..][..n];
        let (mut a, mut b) = (vec![0f64; groups * groups], vec![0f64; groups]);
        let mut image = vec![0f32; n];
        for (g, columns) in members.iter().enumerate() {
            image.fill(0.0);
            for &k in columns.iter().filter(|&&k| centred[k] != 0.0) {
                image.iter_mut().zip(&h[k * n..][..n]).for_each(|(v, h)| *v += centred[k] * h);
            }
            for k in 0..n {
                a[g * groups + band.group[k]] += f64::from(image[k] * centred[k]);
                b[g] += f64::from(image[k] * weight[k]);
            }
            if a[g * groups + g] == 0.0 {
                // All codes are zero: any scale will do, so it keeps its own.
                a[g * groups + g] = 1.0;
                b[g] = f64::from(band.scale[row * groups + g]);
            }
        }
        let Some(found) = solve(&mut a, &b) else { continue };
        let fits = |s: &f64| (*s as f32).is_normal() && *s > 0.0 && *s as f32 >= least;
        if !found.iter().all(fits) {
            continue;
        }
        let scale = &mut band.scale[row * groups..][..groups];
        scale.iter_mut().zip(&found).for_each(|(s, &new)| *s = new as f32);
        for k in 0..n {
            band.error[row * n + k] = weight[k] - scale[band.group[k]] * centred[k];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Levels, Objective, Partition, Rows, gptq, nearest};
    use crate::calibrate::Gram;
    use crate::math::Unfold;
    use crate::passes::quantize::Eight;

    fn noise(seed: u32, n: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..n).map(|_| next() + next() + next()).collect()
    }

    fn gram(size: usize, mixed: bool) -> Gram {
        let mut x = noise(3, 400 * size);
        if mixed {
            // Neighbours depend on each other.
            for k in 1..x.len() {
                x[k] = 0.8 * x[k - 1] + 0.4 * x[k];
            }
        }
        let mut gram = Gram::new(Unfold::Last);
        gram.add(&x, &[400, size]).unwrap();
        gram.finish();
        gram
    }

    fn losses(columns: usize, block: usize, levels: &Levels) -> (f64, f64) {
        let w = Rows { rows: 40, columns, data: noise(9, 40 * columns) };
        let partition = Partition { of: (0..columns).map(|k| k / block).collect(), groups: columns.div_ceil(block) };
        let objective = Objective::new(&gram(columns, true), 0, false, 0.01).unwrap();
        let loss = |values: Vec<f32>| {
            let error: Vec<f32> = w.data.iter().zip(values).map(|(a, b)| a - b).collect();
            error.chunks(columns).map(|e| objective.loss(e)).sum::<f64>()
        };
        let plain = nearest(&w, &partition, None, levels);
        let better = gptq(&w, &partition, levels, &objective, None);
        assert!(better.codes.iter().all(|&c| (levels.low..=levels.high).contains(&i32::from(c))));
        (loss(plain.values(&partition)), loss(better.values(&partition)))
    }

    #[test]
    fn feedback_beats_nearest_rounding_on_the_objective() {
        for (columns, block) in [(100, 100), (100, 32), (70, 16), (9, 9)] {
            for symmetric in [true, false] {
                let (plain, better) = losses(columns, block, &Levels::new(4, Eight::S8, symmetric));
                assert!(better < 0.6 * plain, "{better} for {plain} at {columns} / {block}");
            }
        }
    }

    /// Without covariances there is nothing to feed back: all that is left is which scale.
    #[test]
    fn it_is_nearest_rounding_where_inputs_are_independent() {
        let n = 12;
        let mut diagonal = Gram::new(Unfold::Last);
        for k in 0..n {
            let mut x = vec![0f32; n];
            x[k] = 1.0 + k as f32;
            diagonal.add(&x, &[n]).unwrap();
        }
        diagonal.finish();
        let objective = Objective::new(&diagonal, 0, false, 0.0).unwrap();
        let w = Rows { rows: 5, columns: n, data: noise(1, 5 * n) };
        let levels = Levels::new(4, Eight::S8, true);
        let partition = Partition::whole(n);
        let rounded = gptq(&w, &partition, &levels, &objective, None);
        for (k, (&x, &code)) in w.data.iter().zip(&rounded.codes).enumerate() {
            assert_eq!(levels.code(x / rounded.grid.scale[k / n], 0), i32::from(code), "element {k}");
        }
    }

    #[test]
    fn inputs_that_are_always_zero_are_no_trouble() {
        let mut still = Gram::new(Unfold::Last);
        still.add(&[0.0, 1.0, 0.0, 2.0], &[2, 2]).unwrap();
        still.finish();
        let objective = Objective::new(&still, 0, true, 0.01).unwrap();
        let w = Rows { rows: 1, columns: 2, data: vec![0.7, -0.3] };
        let partition = Partition::whole(2);
        let rounded = gptq(&w, &partition, &Levels::new(4, Eight::S8, true), &objective, None);
        assert!((rounded.values(&partition)[1] + 0.3).abs() < 0.05);
        let mut dead = Gram::new(Unfold::Last);
        dead.add(&[0.0, 0.0], &[1, 2]).unwrap();
        dead.finish();
        assert!(Objective::new(&dead, 0, true, 0.01).is_ok());
    }

    #[test]
    fn zeros_stay_zero() {
        let objective = Objective::new(&gram(24, true), 0, true, 0.01).unwrap();
        let mut data = noise(5, 72);
        data.iter_mut().step_by(3).for_each(|x| *x = 0.0);
        let w = Rows { rows: 3, columns: 24, data };
        for levels in [Levels::new(4, Eight::S8, true), Levels::new(3, Eight::U8, false)] {
            let rounded = gptq(&w, &Partition::whole(24), &levels, &objective, None);
            let values = rounded.values(&Partition::whole(24));
            assert!(w.data.iter().zip(&values).all(|(w, v)| *w != 0.0 || *v == 0.0), "{values:?}");
        }
    }

    #[test]
    fn scales_keep_their_least() {
        let objective = Objective::new(&gram(20, true), 0, false, 0.01).unwrap();
        let w = Rows { rows: 3, columns: 20, data: noise(5, 60) };
        let least = [0.0, 1.0, 0.0];
        let levels = Levels::new(4, Eight::S8, true);
        let rounded = gptq(&w, &Partition::whole(20), &levels, &objective, Some(&least));
        assert!(rounded.grid.scale[1] >= 1.0 && rounded.grid.scale[0] < 1.0);
    }
}
