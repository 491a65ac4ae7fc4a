//! Pairs of products that a 16-bit sum cannot hold.

use std::collections::BTreeSet;

/// The largest sum of two weights' magnitudes whose products with 255 fit 16 bits together: `255 * 128 < 32,767 < 255 * 129`.
const LARGEST_PAIR: i32 = 128;

/// Output channels of a signed 8-bit weight for which a kernel that multiplies u8 by s8 and adds neighbouring products in 16
/// bits (`vpmaddubsw`) could saturate, for some input.
///
/// Neighbours are elements `2i` and `2i + 1` of what an output channel sums over. For a convolution (`[outputs, channels,
/// spatial...]`) they are counted both in the weight's own order and with channels last, as kernels of either layout pack
/// them. The bound is exact: a pair of opposite signs cannot add up, and one within the bound cannot saturate.
pub fn saturating_channels(codes: &[i8], dims: &[usize], axis: usize) -> BTreeSet<usize> {
    let outputs = dims.get(axis).copied().unwrap_or(0);
    let sums = codes.len().checked_div(outputs).unwrap_or(0);
    let channels = dims.get(1).copied().unwrap_or(1).max(1);
    let places = if axis == 0 { sums / channels } else { 1 };
    let overflows = |at: &dyn Fn(usize) -> usize| {
        (0..sums / 2).any(|i| {
            let (a, b) = (i32::from(codes[at(2 * i)]), i32::from(codes[at(2 * i + 1)]));
            a.signum() == b.signum() && a.abs() + b.abs() > LARGEST_PAIR
        })
    };
    let saturates = |o: &usize| {
        if axis != 0 {
            return overflows(&|k| k * outputs + o);
        }
        let own = |k: usize| o * sums + k;
        let channels_last = |k: usize| o * sums + k % channels * places + k / channels;
        overflows(&own) || (places > 1 && overflows(&channels_last))
    };
    (0..outputs).filter(saturates).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a kernel with 16-bit sums of pairs makes of the worst input, against the exact sum.
    fn worst_pair_is_wrong(column: &[i8]) -> bool {
        column.chunks_exact(2).any(|pair| {
            [(255, 255), (255, 0), (0, 255)].iter().any(|(x, y)| {
                let sum = x * i32::from(pair[0]) + y * i32::from(pair[1]);
                i16::try_from(sum).is_err()
            })
        })
    }

    #[test]
    fn the_bound_is_exact() {
        for a in -128..=127i8 {
            for b in [-128, -127, -65, -64, -2, -1, 0, 1, 2, 64, 65, 127] {
                let found = !saturating_channels(&[a, b], &[2, 1], 1).is_empty();
                assert_eq!(found, worst_pair_is_wrong(&[a, b]), "{a} and {b}");
            }
        }
    }

    #[test]
    fn pairs_are_neighbours_along_what_is_summed() {
        // Columns of a matrix: the second one has 100 + 100 in one pair, the first in different pairs.
        let codes = [100, 100, 0, 100, 0, 0, 100, 0];
        assert_eq!(saturating_channels(&codes, &[4, 2], 1), BTreeSet::from([1]));
        // A row of [out, in].
        assert_eq!(saturating_channels(&codes, &[2, 4], 0), BTreeSet::from([0]));
    }

    #[test]
    fn convolutions_are_checked_in_both_layouts() {
        // Two channels of two places: 100s are neighbours only where channels come last.
        let codes = [100, 0, 100, 0];
        assert_eq!(saturating_channels(&codes, &[1, 2, 1, 2], 0), BTreeSet::from([0]));
        assert!(saturating_channels(&[100, 0, 0, 100], &[1, 2, 1, 2], 0).is_empty());
    }
}
