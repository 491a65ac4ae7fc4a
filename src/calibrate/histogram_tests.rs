use super::*;
use proptest::prelude::*;

fn stats(values: &[f32]) -> Statistics {
    let mut s = Statistics::new();
    s.update(values).unwrap();
    s
}

/// Counts by the definition, in f64.
fn counted(values: &[f32], exponent: i32) -> std::collections::BTreeMap<i64, u64> {
    let mut map = std::collections::BTreeMap::new();
    for &x in values {
        *map.entry((f64::from(x) / power_of_two(exponent)).floor() as i64).or_insert(0) += 1;
    }
    map
}

fn occupied(s: &Statistics) -> std::collections::BTreeMap<i64, u64> {
    let (first, counts) = s.bins();
    counts.enumerate().map(|(k, n)| (i64::from(first) + k as i64, n)).filter(|&(_, n)| n > 0).collect()
}

/// Finite values of every magnitude, zeros of both signs and denormals among them.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -1.0f32..1.0,
        2 => -1e4f32..1e4,
        1 => proptest::num::f32::NORMAL,
        1 => proptest::num::f32::SUBNORMAL,
        1 => Just(0.0f32),
        1 => Just(-0.0f32),
    ]
}

proptest! {
    #[test]
    fn statistics_depend_on_the_data_only(
        values in prop::collection::vec(value(), 1..400),
        cuts in prop::collection::vec(0usize..400, 0..6),
        seed in 0usize..1000,
    ) {
        let whole = stats(&values);
        let mut shuffled = values.clone();
        for k in 0..shuffled.len() {
            let n = shuffled.len();
            shuffled.swap(k, (k * 31 + seed) % n);
        }
        let mut edges: Vec<usize> = cuts.iter().map(|c| c % values.len()).chain([0, values.len()]).collect();
        edges.sort_unstable();
        let mut streamed = Statistics::new();
        let mut merged = Statistics::new();
        for edge in edges.windows(2) {
            streamed.update(&shuffled[edge[0]..edge[1]]).unwrap();
            let mut rest = stats(&values[edge[0]..edge[1]]);
            rest.merge(&merged);
            merged = rest;
        }
        prop_assert_eq!(&whole, &streamed);
        prop_assert_eq!(&whole, &merged);
        prop_assert_eq!(whole.min().to_bits(), streamed.min().to_bits());
    }

    #[test]
    fn bins_are_floors(values in prop::collection::vec(value(), 1..300)) {
        let s = stats(&values);
        prop_assert_eq!(occupied(&s), counted(&values, s.exponent()));
        prop_assert_eq!(s.count(), values.len() as u64);
        prop_assert_eq!(s.zeros(), values.iter().filter(|x| **x == 0.0).count() as u64);
        prop_assert_eq!(s.min(), values.iter().copied().fold(f32::INFINITY, f32::min));
        prop_assert_eq!(s.max(), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    }
}

#[test]
fn long_slices_count_as_short_ones() {
    let values: Vec<f32> =
        (0..200_003).map(|k: u32| ((k.wrapping_mul(2_654_435_761) >> 8) as f32 - 8e6).max(-1e6)).collect();
    let whole = stats(&values);
    let mut parts = Statistics::new();
    for part in values.chunks(1000) {
        parts.update(part).unwrap();
    }
    assert_eq!(whole, parts);
    assert_eq!(occupied(&whole), counted(&values, whole.exponent()));
}

#[test]
fn resolution_does_not_depend_on_scale() {
    for power in [-110, -40, -3, 0, 5, 60, 120] {
        let scale = power_of_two(power) as f32;
        for (low, high) in [(-1.0f32, 1.0f32), (0.0, 1.3), (-0.2, 1.9), (-1.0, -0.1)] {
            let both = stats(&[low * scale, high * scale]);
            let (_, counts) = both.bins();
            assert!((4096..=MAX_BINS).contains(&counts.len()), "{} bins at 2^{power}", counts.len());
        }
    }
}

#[test]
fn extremes_of_f32_are_counted() {
    let s = stats(&[f32::MIN, -f32::MIN_POSITIVE, -1e-45, 0.0, 1e-45, f32::MAX]);
    let zero: Vec<_> = occupied(&s).into_iter().filter(|(k, _)| (-1..=0).contains(k)).collect();
    assert_eq!(zero, [(-1, 2), (0, 2)]);
    let tiny = stats(&[1e-45, 3e-45]);
    assert_eq!((tiny.count(), tiny.min(), tiny.max()), (2, 1e-45, 3e-45));
}

#[test]
fn growing_from_tiny_to_huge_keeps_counts() {
    let mut s = stats(&[1e-30, -1e-30, 2e-30]);
    s.update(&[1e30]).unwrap();
    assert_eq!(s.count(), 4);
    assert_eq!(occupied(&s), counted(&[1e-30, -1e-30, 2e-30, 1e30], s.exponent()));
}

#[test]
fn non_finite_values_are_named_and_change_nothing() {
    let mut s = stats(&[1.0, 2.0]);
    let before = s.clone();
    assert_eq!(s.update(&[0.0, f32::NEG_INFINITY]), Err(NonFinite::Infinity));
    assert_eq!(s.update(&[f32::INFINITY, f32::NAN]), Err(NonFinite::Nan));
    assert_eq!(s.update(&vec![f32::NAN; 40_000]), Err(NonFinite::Nan));
    assert_eq!(s, before);
    assert!(Error::from(NonFinite::Nan).to_string().contains("NaN"));
}

#[test]
fn nothing_and_one_value() {
    let mut empty = Statistics::new();
    empty.update(&[]).unwrap();
    empty.merge(&Statistics::new());
    assert_eq!((empty.count(), empty.bins().1.len()), (0, 0));
    assert_eq!(stats(&[7.5, 7.5]).bins().1.collect::<Vec<_>>(), [2]);
}
