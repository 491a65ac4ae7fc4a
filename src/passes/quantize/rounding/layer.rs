//! A whole layer: its weight as a matrix, its groups, and what is left for its bias.

use super::{DAMPING, Grid, Levels, Objective, Partition, Rounded, Rows, gptq, nearest};
use crate::calibrate::Gram;
use crate::error::{Error, Result};
use rayon::prelude::*;

/// What the data say about a layer, and what its bias can make up for.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// Statistics of the layer's inputs.
    pub gram: &'a Gram,
    /// Whether a bias takes up the mean error.
    pub centred: bool,
}

/// Rounds a weight: with feedback where there is evidence, else to the nearest levels. Scales do not go below `least`, per
/// row.
///
/// # Errors
/// Evidence that is of another layer.
pub fn round(
    w: &Rows,
    partition: &Partition,
    levels: &Levels,
    evidence: Option<Evidence>,
    least: Option<&[f32]>,
) -> Result<Rounded> {
    let Some(Evidence { gram, centred }) = evidence.filter(|e| e.gram.count > 0) else {
        let mut rounded = nearest(w, partition, None, levels);
        raise(w, partition, levels, &mut rounded, least);
        return Ok(rounded);
    };
    if gram.size != w.columns || gram.groups == 0 || !w.rows.is_multiple_of(gram.groups) {
        let (rows, columns) = (w.rows, w.columns);
        return Err(Error::internal(format!("statistics of another layer for a weight of {rows} x {columns}")));
    }
    let rows = w.rows / gram.groups;
    let group = |g: usize| {
        let objective = Objective::new(gram, g, centred, DAMPING)?;
        let data = w.data[g * rows * w.columns..][..rows * w.columns].to_vec();
        let part = Rows { rows, columns: w.columns, data };
        Ok(gptq(&part, partition, levels, &objective, least.map(|l| &l[g * rows..][..rows])))
    };
    let parts: Result<Vec<Rounded>> = (0..gram.groups).into_par_iter().map(group).collect();
    let mut whole = Rounded { codes: vec![], grid: Grid { groups: partition.groups, scale: vec![], zero: vec![] } };
    for part in parts? {
        whole.codes.extend(part.codes);
        whole.grid.scale.extend(part.grid.scale);
        whole.grid.zero.extend(part.grid.zero);
    }
    Ok(whole)
}

/// Raises scales to what they must be at least, and rounds those rows anew.
fn raise(w: &Rows, partition: &Partition, levels: &Levels, rounded: &mut Rounded, least: Option<&[f32]>) {
    let Some(least) = least else { return };
    for (row, &least) in least.iter().enumerate() {
        let at = row * partition.groups..(row + 1) * partition.groups;
        if rounded.grid.scale[at.clone()].iter().all(|&s| s >= least) {
            continue;
        }
        rounded.grid.scale[at.clone()].iter_mut().for_each(|s| *s = s.max(least));
        for (k, &group) in partition.of.iter().enumerate() {
            let (scale, zero) = (rounded.grid.scale[at.start + group], rounded.grid.zero[at.start + group]);
            let element = row * w.columns + k;
            rounded.codes[element] = levels.code(w.data[element] / scale, zero) as i16;
        }
    }
}

/// What must be added to the bias of each row so that rounding does not shift the mean output.
pub fn bias_correction(w: &Rows, rounded: &Rounded, partition: &Partition, gram: &Gram) -> Vec<f32> {
    let values = rounded.values(partition);
    let rows = (w.rows / gram.groups.max(1)).max(1);
    let means: Vec<Vec<f64>> = (0..gram.groups).map(|g| gram.mean(g)).collect();
    let shift = |(row, (w, v)): (usize, (&[f32], &[f32]))| {
        let errors = w.iter().zip(v).zip(&means[row / rows]);
        errors.map(|((w, v), m)| f64::from(w - v) * m).sum::<f64>() as f32
    };
    w.data.chunks(w.columns.max(1)).zip(values.chunks(w.columns.max(1))).enumerate().map(shift).collect()
}

impl Rows {
    /// A tensor of shape `dims` with an index of `axis` for each row; the other axes in order make the columns.
    pub fn of(data: &[f32], dims: &[usize], axis: usize) -> Self {
        let (outer, inner) = around(dims, axis);
        let rows = dims[axis];
        let at = |row: usize| (0..outer).flat_map(move |o| (0..inner).map(move |i| (o * rows + row) * inner + i));
        let data = if outer == 1 { data.to_vec() } else { (0..rows).flat_map(|r| at(r).map(|k| data[k])).collect() };
        Self { rows, columns: outer * inner, data }
    }
}

/// The tensor of shape `dims` whose rows along `axis` are those of a matrix: what [`Rows::of`] undoes.
pub fn unrows<T: Copy + Default>(rows: &[T], dims: &[usize], axis: usize) -> Vec<T> {
    let (outer, inner) = around(dims, axis);
    if outer == 1 {
        return rows.to_vec();
    }
    let mut out = vec![T::default(); rows.len()];
    for (row, elements) in rows.chunks((outer * inner).max(1)).enumerate() {
        for (k, &x) in elements.iter().enumerate() {
            out[(k / inner * dims[axis] + row) * inner + k % inner] = x;
        }
    }
    out
}

fn around(dims: &[usize], axis: usize) -> (usize, usize) {
    (dims[..axis].iter().product(), dims[axis + 1..].iter().product())
}

impl Partition {
    /// Blocks of `block` indices of `block_axis` share a scale, for each index of the other axes but `channel_axis`; the
    /// shape of the scales is `dims` with `block_axis` divided by `block`, rounded up.
    pub fn blocks(dims: &[usize], channel_axis: usize, block_axis: usize, block: usize) -> Self {
        let others: Vec<usize> = (0..dims.len()).filter(|&a| a != channel_axis).collect();
        let columns: usize = others.iter().map(|&a| dims[a]).product();
        let blocks = |a: usize| if a == block_axis { dims[a].div_ceil(block) } else { dims[a] };
        let group = |column: usize| {
            let (mut rest, mut group, mut step) = (column, 0, 1);
            for &a in others.iter().rev() {
                let index = rest % dims[a];
                rest /= dims[a];
                group += step * if a == block_axis { index / block } else { index };
                step *= blocks(a);
            }
            group
        };
        Self { of: (0..columns).map(group).collect(), groups: others.iter().map(|&a| blocks(a)).product() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::{Padding, Patches, Unfold};
    use crate::passes::quantize::Eight;

    #[test]
    fn rows_and_back() {
        let data: Vec<f32> = (0..24).map(|k| k as f32).collect();
        for axis in 0..3 {
            let rows = Rows::of(&data, &[2, 3, 4], axis);
            assert_eq!(unrows(&rows.data, &[2, 3, 4], axis), data, "axis {axis}");
        }
        assert_eq!(Rows::of(&data, &[2, 3, 4], 1).data[..8], [0., 1., 2., 3., 12., 13., 14., 15.]);
    }

    #[test]
    fn blocks_that_do_not_divide_the_axis_end_with_a_short_one() {
        let p = Partition::blocks(&[5, 3], 1, 0, 2);
        assert_eq!((p.of, p.groups), (vec![0, 0, 1, 1, 2], 3));
        // [outputs, inputs, window]: blocks of inputs, apart for each place of the window.
        let p = Partition::blocks(&[1, 3, 2], 0, 1, 2);
        assert_eq!((p.of, p.groups), (vec![0, 1, 0, 1, 2, 3], 4));
    }

    #[test]
    fn groups_of_a_convolution_are_rounded_with_their_own_statistics() {
        let (groups, kernel) = (2, vec![3]);
        let padding = Padding::Fixed(vec![(1, 1)]);
        let patches = Patches { groups, kernel, strides: vec![1], dilations: vec![1], padding };
        let mut gram = Gram::new(Unfold::Patches(patches));
        let x: Vec<f32> = (0..80).map(|k| (k as f32 * 0.9).sin() + if k < 40 { 2.0 } else { 0.0 }).collect();
        gram.add(&x, &[1, 2, 40]).unwrap();
        gram.finish();
        let w = Rows { rows: 4, columns: 3, data: (0..12).map(|k| (k as f32 * 1.3).cos()).collect() };
        let (levels, partition) = (Levels::new(3, Eight::S8, true), Partition::whole(3));
        let rounded = round(&w, &partition, &levels, Some(Evidence { gram: &gram, centred: true }), None).unwrap();
        assert_eq!((rounded.codes.len(), rounded.grid.scale.len()), (12, 4));
        // The correction is the mean of what is lost.
        let correction = bias_correction(&w, &rounded, &partition, &gram);
        let values = rounded.values(&partition);
        for row in 0..4 {
            let error = |k: usize| f64::from(w.data[row * 3 + k] - values[row * 3 + k]);
            let lost: f64 = (0..3).map(|k| error(k) * gram.mean(row / 2)[k]).sum();
            assert!((f64::from(correction[row]) - lost).abs() < 1e-6);
        }
        assert!(
            round(&Rows { columns: 4, ..w }, &partition, &levels, Some(Evidence { gram: &gram, centred: true }), None)
                .is_err()
        );
    }
}
