//! Rounding with feedback (Frantar et al., GPTQ, 2022; Optimal Brain Compression).

use super::grid::{Grid, Levels, Partition, Rounded, Rows};
use super::objective::Objective;
use super::refine::refine;
use super::search::nearest;
use crate::math::gemm;
use rayon::prelude::*;

/// Columns that are rounded between two matrix products.
const BLOCK: usize = 64;

/// Rows of one piece of work.
const BAND: usize = 32;

/// Rows in the order in which columns are rounded, while they are.
pub(super) struct Band<'a> {
    pub objective: &'a Objective,
    pub levels: &'a Levels,
    /// Group of each column.
    pub group: &'a [usize],
    /// Groups per row.
    pub groups: usize,
    pub rows: usize,
    /// `[rows, columns]`.
    pub weight: Vec<f32>,
    pub codes: Vec<i16>,
    /// Weight minus what its code stands for.
    pub error: Vec<f32>,
    pub scale: &'a mut [f32],
    pub zero: &'a [i32],
}

/// Rounds the rows of one group of a layer: column after column, each taking up what the errors of those before it do to
/// the output; then codes and scales are improved in turns (`refine`).
///
/// The levels are those that [`nearest`] finds, with errors weighted by the diagonal of the objective. Scales do not go
/// below `least`, per row.
pub fn gptq(w: &Rows, partition: &Partition, levels: &Levels, objective: &Objective, least: Option<&[f32]>) -> Rounded {
    let n = w.columns;
    let mut start = nearest(w, partition, Some(&objective.importance()), levels);
    let floor = |row: usize| least.map_or(0.0, |l| l[row]);
    for (k, s) in start.grid.scale.iter_mut().enumerate() {
        *s = s.max(floor(k / partition.groups));
    }
    let group: Vec<usize> = objective.order.iter().map(|&c| partition.of[c]).collect();
    let Grid { groups, mut scale, zero } = start.grid;
    let mut codes = vec![0i16; w.data.len()];
    let bands = codes.par_chunks_mut(BAND * n.max(1)).zip(w.data.par_chunks(BAND * n.max(1)));
    let grids = scale.par_chunks_mut(BAND * groups).zip(zero.par_chunks(BAND * groups));
    bands.zip(grids).enumerate().for_each(|(k, ((codes, weight), (scale, zero)))| {
        let rows = weight.len() / n.max(1);
        let weight = weight.chunks(n).flat_map(|row| objective.order.iter().map(|&c| row[c])).collect();
        let (len, group) = (rows * n, &group[..]);
        let (new, error) = (vec![0; len], vec![0.0; len]);
        let mut band = Band { objective, levels, group, groups, rows, weight, codes: new, error, scale, zero };
        band.round();
        let least: Vec<f32> = (0..rows).map(|r| floor(k * BAND + r)).collect();
        refine(&mut band, &least);
        for (to, from) in codes.chunks_mut(n).zip(band.codes.chunks(n)) {
            objective.order.iter().zip(from).for_each(|(&c, &code)| to[c] = code);
        }
    });
    Rounded { codes, grid: Grid { groups, scale, zero } }
}

impl Band<'_> {
    fn round(&mut self) {
        let n = self.objective.size;
        let u = &self.objective.feedback[..];
        for start in (0..n).step_by(BLOCK) {
            let width = BLOCK.min(n - start);
            // What the errors of earlier blocks ask of this one.
            let mut ask = vec![0f32; self.rows * width];
            if start > 0 {
                let (errors, feedback) = ((&self.error[..], (n, 1)), (&u[start..], (n, 1)));
                gemm((self.rows, start, width), 1.0, errors, feedback, 0.0, (&mut ask, (width, 1)));
            }
            for (row, ask) in ask.chunks_mut(width).enumerate() {
                for k in 0..width {
                    let error = self.set_nearest(row, start + k, ask[k]);
                    let feedback = &u[(start + k) * n + start..][..width];
                    ask[k + 1..].iter_mut().zip(&feedback[k + 1..]).for_each(|(a, u)| *a += error * u);
                }
            }
        }
    }

    /// Gives an element the code nearest to itself plus `ask`, and a zero that of zero; returns the error.
    fn set_nearest(&mut self, row: usize, column: usize, ask: f32) -> f32 {
        let (at, grid) = (row * self.objective.size + column, row * self.groups + self.group[column]);
        let (scale, zero) = (self.scale[grid], self.zero[grid]);
        // Zeros stay: a sparse weight must not fill up.
        let wanted = if self.weight[at] == 0.0 { 0.0 } else { self.weight[at] + ask };
        let code = self.levels.code(wanted / scale, zero);
        self.codes[at] = code as i16;
        self.error[at] = self.weight[at] - scale * (code - zero) as f32;
        self.error[at]
    }
}
