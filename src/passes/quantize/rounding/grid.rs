//! Levels of a weight, and which elements share them.

use super::super::options::{Eight, QuantizeOptions};
use rayon::prelude::*;

/// The integers that an element of a weight may become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Levels {
    /// Smallest code.
    pub low: i32,
    /// Largest code.
    pub high: i32,
    /// The code of zero; `None` where each group of elements has its own.
    pub zero: Option<i32>,
}

impl Levels {
    /// Codes of `bits` bits. A zero point of a group's own needs the unsigned ones.
    pub fn new(bits: u8, weights: Eight, symmetric: bool) -> Self {
        let half = 1i32 << (bits - 1);
        match (symmetric, weights.is_signed()) {
            (true, true) => Self { low: -half, high: half - 1, zero: Some(0) },
            (true, false) => Self { low: 0, high: 2 * half - 1, zero: Some(half) },
            (false, _) => Self { low: 0, high: 2 * half - 1, zero: None },
        }
    }

    /// The levels that the options ask for.
    pub fn of(options: &QuantizeOptions) -> Self {
        Self::with_bits(options, options.weight_bits)
    }

    /// Those of the options, with another number of bits.
    pub fn with_bits(options: &QuantizeOptions, bits: u8) -> Self {
        Self::new(bits, options.weights, options.symmetric_weights)
    }

    /// The nearest code of `x` in units of the step.
    #[inline]
    pub fn code(&self, x: f32, zero: i32) -> i32 {
        // Saturates where it would overflow.
        (x.round_ties_even() as i32).saturating_add(zero).clamp(self.low, self.high)
    }
}

/// A weight as a matrix: an output of the layer for each row, elements that are summed along it.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub columns: usize,
    /// `[rows, columns]`.
    pub data: Vec<f32>,
}

/// Which columns of a row share a scale: the same in all rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Per column: its group.
    pub of: Vec<usize>,
    /// Number of groups.
    pub groups: usize,
}

impl Partition {
    /// One group.
    pub fn whole(columns: usize) -> Self {
        Self { of: vec![0; columns], groups: 1 }
    }

    /// The columns of each group.
    pub fn members(&self) -> Vec<Vec<usize>> {
        let mut members = vec![vec![]; self.groups];
        for (column, &group) in self.of.iter().enumerate() {
            members[group].push(column);
        }
        members
    }
}

/// Scales and zero points: `w = scale * (code - zero)`.
#[derive(Clone, PartialEq, Debug)]
pub struct Grid {
    /// Groups per row.
    pub groups: usize,
    /// `[rows, groups]`.
    pub scale: Vec<f32>,
    /// `[rows, groups]`.
    pub zero: Vec<i32>,
}

/// A rounded weight.
#[derive(Clone, PartialEq, Debug)]
pub struct Rounded {
    /// `[rows, columns]`.
    pub codes: Vec<i16>,
    /// What they stand for.
    pub grid: Grid,
}

impl Rounded {
    /// The weight that the codes stand for, `[rows, columns]`.
    pub fn values(&self, partition: &Partition) -> Vec<f32> {
        let columns = partition.of.len().max(1);
        let mut values = vec![0f32; self.codes.len()];
        values.par_chunks_mut(columns).zip(self.codes.par_chunks(columns)).enumerate().for_each(
            |(row, (out, codes))| {
                let (scale, zero) = self.grid.row(row);
                for ((x, &code), &group) in out.iter_mut().zip(codes).zip(&partition.of) {
                    *x = scale[group] * (i32::from(code) - zero[group]) as f32;
                }
            },
        );
        values
    }
}

impl Grid {
    /// Scales and zero points of a row.
    pub fn row(&self, row: usize) -> (&[f32], &[i32]) {
        let at = row * self.groups..(row + 1) * self.groups;
        (&self.scale[at.clone()], &self.zero[at])
    }
}
