//! The factors that migration divides channels by.

use super::Migrate;
use crate::calibrate::Sample;
use crate::passes::quantize::trial::{Layer, Trial};
use rayon::prelude::*;

/// Strengths tried, evenly from 0 to 1.
const STRENGTHS: usize = 21;
/// Thresholds tried, each the largest magnitude divided by another half power of two.
const THRESHOLDS: usize = 14;
/// Smallest magnitude that counts, as a share of the largest: what never varies needs no factor of its own.
const NEGLIGIBLE: f32 = 1e-5;

/// What was found for one input.
pub struct Found {
    /// What each channel is divided by.
    pub factors: Vec<f32>,
    /// Relative squared error of the layers' outputs without and with the factors.
    pub errors: (f64, f64),
}

/// The factors for layers that share the sampled input; `None` where none does better than 1.
///
/// Two families are tried. The first is SmoothQuant's, `max|X_j|^a / max|W_j|^(1-a)` (Xiao et al., 2022). The second leaves
/// channels below a threshold as they are and brings the others down to it, `max(max|X_j| / t, 1)` (Wei et al., Outlier
/// Suppression+, 2023, section 4.2): better where few channels stand out.
pub fn search(migrate: Migrate, layers: &[Layer], sample: &Sample, trial: &Trial) -> Option<Found> {
    let input: Vec<f32> = sample.low.iter().zip(&sample.high).map(|(l, h)| h.max(-l)).collect();
    let mut weight = vec![0f32; input.len()];
    for layer in layers {
        weight.iter_mut().zip(layer.input_maxima()).for_each(|(w, m)| *w = w.max(m));
    }
    let (input, weight) = (floored(input), floored(weight));
    let candidates: Vec<Vec<f32>> = match migrate {
        Migrate::None => return None,
        Migrate::Strength(a) => vec![smooth(&input, &weight, a)],
        Migrate::Auto => {
            let strength = |k: usize| smooth(&input, &weight, k as f64 / (STRENGTHS - 1) as f64);
            (0..STRENGTHS).map(strength).chain((1..=THRESHOLDS).map(|k| capped(&input, k))).collect()
        }
    };
    let error = |f: Option<&[f32]>| trial.error(f, trial.range(f));
    let before = error(None);
    let errors: Vec<f64> = candidates.par_iter().map(|f| error(Some(f))).collect();
    let best = errors.into_iter().zip(candidates).min_by(|a, b| a.0.total_cmp(&b.0));
    let better = best.filter(|(after, _)| migrate != Migrate::Auto || *after < before);
    better.map(|(after, factors)| Found { factors, errors: (before, after) })
}

/// Magnitudes with a lower bound, so that quotients stay finite.
fn floored(mut x: Vec<f32>) -> Vec<f32> {
    let largest = x.iter().copied().fold(0.0, f32::max);
    let least = if largest > 0.0 { largest * NEGLIGIBLE } else { 1.0 };
    x.iter_mut().for_each(|x| *x = x.max(least));
    x
}

fn smooth(input: &[f32], weight: &[f32], strength: f64) -> Vec<f32> {
    let logarithms = input.iter().zip(weight).map(|(&x, &w)| {
        let (x, w) = (f64::from(x).ln(), f64::from(w).ln());
        strength * x - (1.0 - strength) * w
    });
    let logarithms: Vec<f64> = logarithms.collect();
    // Only their ratios matter; around 1 they change numbers least.
    let mean = logarithms.iter().sum::<f64>() / logarithms.len().max(1) as f64;
    logarithms.iter().map(|l| (l - mean).exp() as f32).collect()
}

fn capped(input: &[f32], halvings: usize) -> Vec<f32> {
    let largest = input.iter().copied().fold(0.0, f32::max);
    let threshold = largest * 0.5f32.powf(halvings as f32 / 2.0);
    input.iter().map(|x| (x / threshold).max(1.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strength_moves_all_or_nothing_at_its_ends() {
        let (input, weight) = (floored(vec![8.0, 2.0, 0.0]), floored(vec![1.0, 4.0, 2.0]));
        let all = smooth(&input, &weight, 1.0);
        assert!((all[0] / all[1] - 4.0).abs() < 1e-5, "ranges of the input become equal");
        let none = smooth(&input, &weight, 0.0);
        assert!((none[0] / none[1] - 4.0).abs() < 1e-5, "ranges of the weight become equal");
        assert!(all.iter().chain(&none).all(|f| f.is_normal()));
    }

    #[test]
    fn a_threshold_touches_only_what_is_above_it() {
        let capped = capped(&[8.0, 2.0, 3.0], 2);
        assert_eq!(capped, [2.0, 1.0, 1.0]);
    }
}
