use super::*;
use crate::calibrate::QuantParams;

/// Deterministic uniform numbers in 0..1.
fn uniform(n: usize) -> impl Iterator<Item = f64> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    })
    .take(n)
}

/// Standard normal numbers (Box-Muller).
fn gaussian(n: usize) -> Vec<f32> {
    let u: Vec<f64> = uniform(2 * n).collect();
    let draw = |p: &[f64]| (-2.0 * p[0].max(1e-300).ln()).sqrt() * (std::f64::consts::TAU * p[1]).cos();
    u.chunks(2).map(|p| draw(p) as f32).collect()
}

fn stats(values: &[f32]) -> Statistics {
    let mut s = Statistics::new();
    s.update(values).unwrap();
    s
}

fn spec(bits: u32, symmetric: bool) -> RangeSpec {
    RangeSpec::new(bits, true, symmetric).unwrap()
}

/// Mean squared error of really quantizing the values.
fn measured(values: &[f32], (low, high): (f32, f32), spec: &RangeSpec) -> f64 {
    let p = QuantParams::from_range(low, high, spec);
    let (scale, zero) = (f64::from(p.scale), f64::from(p.zero_point));
    let error = |&x: &f32| {
        let q = ((f64::from(x) / scale).round_ties_even() + zero).clamp(spec.qmin.into(), spec.qmax.into());
        ((q - zero) * scale - f64::from(x)).powi(2)
    };
    values.iter().map(error).sum::<f64>() / values.len() as f64
}

fn with_outliers() -> Vec<f32> {
    let mut values = gaussian(100_000);
    values.extend([40.0, -35.0, 38.0]);
    values
}

#[test]
fn methods_spell_themselves() {
    for text in ["minmax", "percentile=99.99", "percentile=100", "entropy", "mse"] {
        let method: Method = text.parse().unwrap();
        assert_eq!(method.to_string(), text);
        let json = serde_json::to_string(&method).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Method>(&json).unwrap(), method);
    }
    for text in ["", "kl", "percentile", "percentile=", "percentile=50", "percentile=100.1", "percentile=nan"] {
        assert!(text.parse::<Method>().is_err(), "{text}");
    }
}

#[test]
fn minmax_is_what_was_observed() {
    let s = stats(&[-1.25, 3.5, 2.0]);
    assert_eq!(range(&s, Method::MinMax, &spec(8, false)), (-1.25, 3.5));
    assert_eq!(range(&s, Method::MinMax, &spec(8, true)), (-3.5, 3.5));
    assert_eq!(range(&stats(&[2.0, 5.0]), Method::MinMax, &spec(8, false)), (0.0, 5.0));
}

#[test]
fn percentile_is_within_a_bin_of_the_exact_order_statistic() {
    let values = with_outliers();
    let s = stats(&values);
    let width = power_of_two(s.exponent()) as f32;
    let mut sorted = values.clone();
    sorted.sort_by(f32::total_cmp);
    let mut magnitudes: Vec<f32> = values.iter().map(|x| x.abs()).collect();
    magnitudes.sort_by(f32::total_cmp);
    let exact = |v: &[f32], q: f64| v[((q * v.len() as f64).ceil() as usize).clamp(1, v.len()) - 1];
    for p in [90.0, 99.0, 99.9, 99.99] {
        let (low, high) = range(&s, Method::Percentile(p), &spec(8, false));
        let cut = (100.0 - p) / 200.0;
        assert!((low - exact(&sorted, cut)).abs() <= width, "{p}: {low}");
        assert!((high - exact(&sorted, 1.0 - cut)).abs() <= width, "{p}: {high}");
        let (low, high) = range(&s, Method::Percentile(p), &spec(8, true));
        assert_eq!(low, -high);
        assert!((high - exact(&magnitudes, p / 100.0)).abs() <= width, "{p}: {high}");
    }
    assert_eq!(range(&s, Method::Percentile(100.0), &spec(8, false)), (s.min(), s.max()));
}

#[test]
fn entropy_clips_outliers_and_keeps_the_bulk() {
    for symmetric in [true, false] {
        let (low, high) = range(&stats(&with_outliers()), Method::Entropy, &spec(8, symmetric));
        assert!((2.5..20.0).contains(&high) && (-20.0..-2.5).contains(&low), "{symmetric}: {low} {high}");
    }
    let relu: Vec<f32> = with_outliers().iter().map(|x| x.max(0.0)).collect();
    let (low, high) = range(&stats(&relu), Method::Entropy, &spec(8, false));
    assert!(low == 0.0 && (2.5..20.0).contains(&high), "{low} {high}");
}

#[test]
fn entropy_is_not_minmax_without_outliers_either() {
    let s = stats(&gaussian(200_000));
    let (_, high) = range(&s, Method::Entropy, &spec(8, true));
    assert!(high > 2.5 && high < 0.999 * s.max(), "{high} of {}", s.max());
}

#[test]
fn zeros_do_not_change_entropy_and_mse() {
    let values: Vec<f32> = with_outliers().iter().map(|x| x.abs()).collect();
    let mut diluted = values.clone();
    diluted.resize(10 * values.len(), 0.0);
    for method in [Method::Entropy, Method::Mse] {
        let spec = spec(8, false);
        assert_eq!(range(&stats(&values), method, &spec), range(&stats(&diluted), method, &spec));
    }
}

#[test]
fn mse_is_as_good_as_brute_force_on_the_values() {
    let skewed: Vec<f32> = with_outliers().iter().map(|&x| if x < 0.0 { 0.3 * x } else { x }).collect();
    let relu: Vec<f32> = with_outliers().iter().map(|x| x.max(0.0)).collect();
    for (name, values) in
        [("gaussian", gaussian(50_000)), ("outliers", with_outliers()), ("skewed", skewed), ("relu", relu)]
    {
        let values = &values[values.len() - 20_000..];
        let s = stats(values);
        for (bits, symmetric) in [(8, true), (8, false), (4, true), (4, false)] {
            let spec = spec(bits, symmetric);
            let found = range(&s, Method::Mse, &spec);
            let (low, high) = (s.min().min(0.0), s.max());
            let shares = (1..=60).map(|k| k as f32 / 60.0);
            let grid = shares.clone().flat_map(|a| shares.clone().map(move |b| (a, b)));
            // Symmetric and one-sided ranges have one end.
            let one_end = symmetric || low == 0.0;
            let ranges = grid.filter(|(a, b)| !one_end || a == b).map(|(a, b)| (a * low, b * high));
            let step = if one_end { 1 } else { 7 };
            let brute = ranges.step_by(step).map(|r| measured(values, r, &spec)).fold(f64::INFINITY, f64::min);
            let ours = measured(values, found, &spec);
            assert!(ours <= 1.02 * brute, "{name} {bits} {symmetric}: {found:?} {ours:e} against {brute:e}");
            assert!(found.0 >= -s.max().max(-s.min()) && found.1 <= s.max().max(-s.min()));
        }
    }
}

#[test]
fn few_bits_clip_more() {
    let s = stats(&gaussian(100_000));
    let highs: Vec<f32> = [2, 4, 8, 16].iter().map(|&b| range(&s, Method::Mse, &spec(b, true)).1).collect();
    assert!(highs.is_sorted_by(|a, b| a < b), "{highs:?}");
    // Published optimum for a Gaussian and 4 bits: 2.55 sigma (Banner et al., NeurIPS 2019), there with 16 levels.
    assert!((2.3..2.8).contains(&highs[1]), "{highs:?}");
    assert!(highs[3] > 0.99 * s.max(), "{highs:?}");
}

#[test]
fn degenerate_values_have_ranges() {
    let methods = [Method::MinMax, Method::Percentile(99.9), Method::Entropy, Method::Mse];
    let cases: [&[f32]; 9] = [
        &[],
        &[0.0; 5],
        &[3.0; 5],
        &[-3.0; 5],
        &[1e-45, -1e-45],
        &[1e-40],
        &[f32::MIN, f32::MAX],
        &[100.0, 100.001],
        &[-7.0, -6.5, 0.0],
    ];
    for values in cases {
        for method in methods {
            for symmetric in [true, false] {
                for bits in [2, 8, 16] {
                    let spec = spec(bits, symmetric);
                    let (low, high) = range(&stats(values), method, &spec);
                    assert!(low <= 0.0 && high >= 0.0, "{values:?} {method} {low} {high}");
                    assert_eq!(low == high, values.iter().all(|&x| x == 0.0), "{values:?} {method} {low} {high}");
                    assert!(low.is_finite() && high.is_finite());
                    let p = QuantParams::from_range(low, high, &spec);
                    assert!(p.scale.is_normal() && (spec.qmin..=spec.qmax).contains(&p.zero_point));
                }
            }
        }
    }
}

#[test]
fn equal_values_stay_representable() {
    for method in [Method::MinMax, Method::Percentile(99.9), Method::Entropy, Method::Mse] {
        let (low, high) = range(&stats(&[3.0; 50]), method, &spec(8, false));
        assert_eq!(low, 0.0);
        assert!((2.99..=3.0).contains(&high), "{method}: {high}");
    }
}

#[test]
fn mostly_zeros_fall_back_to_everything() {
    let mut values = vec![0.0; 1_000_000];
    values.push(2.0);
    let (_, high) = range(&stats(&values), Method::Percentile(99.9), &spec(8, false));
    assert!(high > 0.0);
}
