//! Which weights of a layer become zero together, and how many at most.

use super::super::options::{Block, Pattern};

/// The form of the zeros in a weight of `[rows, columns]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Rows of which all have their zeros at the same columns; the last of such blocks may have fewer.
    pub rows: usize,
    /// Columns that are zero together.
    pub units: Vec<Vec<usize>>,
    /// For each unit the run that it lies in, and for each run how many of its units may go.
    pub runs: Option<(Vec<usize>, Vec<usize>)>,
}

impl Shape {
    /// Single weights, blocks of them, or N of every M. Columns are `inputs` times `taps`, the place in the window last.
    pub fn new(inputs: usize, taps: usize, block: Option<Block>, pattern: Option<Pattern>) -> Self {
        let taps = taps.max(1);
        let along = block.map_or(1, |b| b.inputs);
        let unit = |k: usize| {
            let (first, tap) = (k / taps * along, k % taps);
            (first..(first + along).min(inputs)).map(|i| i * taps + tap).collect()
        };
        let units: Vec<Vec<usize>> = (0..inputs.div_ceil(along) * taps).map(unit).collect();
        let runs = pattern.map(|p| {
            let run = |k: usize| k / taps / p.of * taps + k % taps;
            let of: Vec<usize> = (0..units.len()).map(run).collect();
            let mut sizes = vec![0; of.iter().max().map_or(0, |m| m + 1)];
            of.iter().for_each(|&r| sizes[r] += 1);
            (of, sizes.into_iter().map(|n: usize| n - (p.keep * n).div_ceil(p.of)).collect())
        });
        Self { rows: block.map_or(1, |b| b.outputs), units, runs }
    }

    /// Weights that go with a unit, in a block of `rows` rows.
    pub fn weights(&self, unit: usize, rows: usize) -> usize {
        self.units[unit].len() * rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_blocks_lie_along_the_inputs() {
        let pattern: Pattern = "2:4".parse().unwrap();
        let s = Shape::new(6, 2, None, Some(pattern));
        let (run, most) = s.runs.clone().unwrap();
        // Inputs 0 to 3 of each place, then what is left over, of which half stays.
        assert_eq!(run, [0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3]);
        assert_eq!(most, [2, 2, 1, 1]);
        let s = Shape::new(5, 2, Some("4x2".parse().unwrap()), None);
        assert_eq!(s.units, [vec![0, 2], vec![1, 3], vec![4, 6], vec![5, 7], vec![8], vec![9]]);
        assert_eq!((s.rows, s.weights(0, 4)), (4, 8));
    }
}
