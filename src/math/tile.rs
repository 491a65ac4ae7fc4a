//! Products of packed rows with runs of values that lie at listed places: what a convolution comes down to where its windows
//! are not copied.
//!
//! A tile of the result stays in vector registers while all of its terms are added. The compiler makes the vectors; which
//! ones it may use is asked of the machine.

use super::Real;

/// Rows of a tile.
const ROWS: usize = 4;

/// A tile has this many columns, or two thirds or a third of them where fewer are left.
const COLUMNS: usize = 48;

/// What runs may be read beyond their last column: columns are counted in steps of a narrow tile.
pub(super) const SLACK: usize = COLUMNS / 3 - 1;

/// Rows of a matrix, packed by tiles: `[tile, depth, row of the tile]`, zeros where the last tile has no row.
pub(super) struct PackedRows<T> {
    rows: usize,
    depth: usize,
    packed: Vec<[T; ROWS]>,
}

/// A tile in memory.
type Tile<T, const P: usize> = [[T; P]; ROWS];

impl<T: Real> PackedRows<T> {
    /// Room for a matrix.
    pub fn new(rows: usize, depth: usize) -> Self {
        Self { rows, depth, packed: vec![[T::zero(); ROWS]; rows.div_ceil(ROWS) * depth] }
    }

    /// Takes the matrix in: `row(r)` has its values by depth.
    pub fn pack<V: IntoIterator<Item = T>>(&mut self, row: impl Fn(usize) -> V) {
        for (tile, packed) in self.packed.chunks_exact_mut(self.depth.max(1)).enumerate() {
            for r in tile * ROWS..((tile + 1) * ROWS).min(self.rows) {
                packed.iter_mut().zip(row(r)).for_each(|(packed, value)| packed[r % ROWS] = value);
            }
        }
    }

    /// `y[r][l] += Σ_k rows[r][k] * x[at[k] + l]` for the first `columns` columns; rows of `y` are `stride` apart.
    ///
    /// `x` goes on for [`SLACK`] elements (of any value) after the last that is named.
    pub fn times(&self, at: &[usize], x: &[T], columns: usize, (y, stride): (&mut [T], usize)) {
        let narrow = COLUMNS / 3;
        let mut from = 0;
        while from < columns {
            let x = &x[from..];
            let y = &mut y[from..];
            let left = columns - from;
            from += match left.div_ceil(narrow) {
                1 => self.column::<16>(at, x, left, (y, stride)),
                2 => self.column::<32>(at, x, left, (y, stride)),
                _ => self.column::<COLUMNS>(at, x, left, (y, stride)),
            };
        }
    }

    /// The tiles of `P` columns, of which `left` are wanted at most.
    fn column<const P: usize>(&self, at: &[usize], x: &[T], left: usize, (y, stride): (&mut [T], usize)) -> usize {
        let wanted = left.min(P);
        for (tile, packed) in self.packed.chunks_exact(self.depth.max(1)).enumerate() {
            let rows = (self.rows - tile * ROWS).min(ROWS);
            let y = &mut y[tile * ROWS * stride..];
            let mut sums: Tile<T, P> = [[T::zero(); P]; ROWS];
            for (r, sums) in sums[..rows].iter_mut().enumerate() {
                sums[..wanted].copy_from_slice(&y[r * stride..][..wanted]);
            }
            add_tile(packed, at, x, &mut sums);
            for (r, sums) in sums[..rows].iter().enumerate() {
                y[r * stride..][..wanted].copy_from_slice(&sums[..wanted]);
            }
        }
        P
    }
}

/// `sums[r][l] += Σ_k packed[k][r] * x[at[k] + l]` with the widest vectors that there are.
fn add_tile<T: Real, const P: usize>(packed: &[[T; ROWS]], at: &[usize], x: &[T], sums: &mut Tile<T, P>) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the machine has what the function is compiled for.
            return unsafe { with_avx512(packed, at, x, sums) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: as above.
            return unsafe { with_avx2(packed, at, x, sums) };
        }
    }
    in_parts::<T, P, { cfg!(target_arch = "aarch64") }>(packed, at, x, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn with_avx512<T: Real, const P: usize>(packed: &[[T; ROWS]], at: &[usize], x: &[T], sums: &mut Tile<T, P>) {
    add::<T, P, true>(packed, at, x, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2<T: Real, const P: usize>(packed: &[[T; ROWS]], at: &[usize], x: &[T], sums: &mut Tile<T, P>) {
    in_parts::<T, P, true>(packed, at, x, sums);
}

/// As [`add`], in parts that sixteen vectors of eight values hold.
#[inline(always)]
fn in_parts<T: Real, const P: usize, const FUSED: bool>(
    packed: &[[T; ROWS]],
    at: &[usize],
    x: &[T],
    sums: &mut Tile<T, P>,
) {
    if P == COLUMNS {
        parts::<T, P, 24, FUSED>(packed, at, x, sums)
    } else {
        parts::<T, P, 16, FUSED>(packed, at, x, sums)
    }
}

#[inline(always)]
fn parts<T: Real, const P: usize, const PART: usize, const FUSED: bool>(
    packed: &[[T; ROWS]],
    at: &[usize],
    x: &[T],
    sums: &mut Tile<T, P>,
) {
    for from in (0..P).step_by(PART) {
        let mut part: Tile<T, PART> = [[T::zero(); PART]; ROWS];
        part.iter_mut().zip(&*sums).for_each(|(part, sums)| part.copy_from_slice(&sums[from..][..PART]));
        add::<T, PART, FUSED>(packed, at, &x[from..], &mut part);
        part.iter().zip(&mut *sums).for_each(|(part, sums)| sums[from..][..PART].copy_from_slice(part));
    }
}

#[inline(always)]
fn add<T: Real, const P: usize, const FUSED: bool>(packed: &[[T; ROWS]], at: &[usize], x: &[T], sums: &mut Tile<T, P>) {
    let mut tile = *sums; // in registers
    for (rows, &at) in packed.iter().zip(at) {
        let x = &x[at..][..P];
        for (row, &weight) in tile.iter_mut().zip(rows) {
            for (sum, &x) in row.iter_mut().zip(x) {
                // Where a fused operation is a call of a function it is no gain.
                *sum = if FUSED { weight.mul_add(x, *sum) } else { *sum + weight * x };
            }
        }
    }
    *sums = tile;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole numbers: sums are exact in any order, with and without fused operations.
    fn numbers<T: Real>(n: usize, seed: usize) -> Vec<T> {
        (0..n).map(|i| T::of(((i * 7 + seed) % 11) as f64 - 5.0)).collect()
    }

    fn agrees<T: Real>(rows: usize, depth: usize, columns: usize) {
        let (matrix, stride) = (numbers::<T>(rows * depth, 3), columns + 2);
        let at: Vec<usize> = (0..depth).map(|k| k * 5 % 13).collect();
        let x = numbers::<T>(13 + columns + SLACK, 1);
        let start = numbers::<T>(rows * stride, 2);
        let mut packed = PackedRows::new(rows, depth);
        packed.pack(|r| matrix[r * depth..][..depth].iter().copied());
        let mut y = start.clone();
        packed.times(&at, &x, columns, (&mut y, stride));
        for (i, (&y, &start)) in y.iter().zip(&start).enumerate() {
            let (r, l) = (i / stride, i % stride);
            let terms = (0..depth).map(|k| matrix[r * depth + k] * x[at[k] + l]).sum::<T>();
            let want = if l < columns { start + terms } else { start };
            assert_eq!(y, want, "{rows} rows, depth {depth}, {columns} columns: {r}, {l}");
        }
    }

    #[test]
    fn tiles_of_every_width_agree_with_the_definition() {
        for rows in [1, 3, 4, 9] {
            for columns in [0, 1, 15, 16, 17, 31, 32, 33, 48, 49, 64, 80, 97, 150] {
                agrees::<f32>(rows, 10, columns);
                agrees::<f64>(rows, 3, columns);
            }
        }
        agrees::<f32>(2, 0, 20);
        agrees::<f32>(0, 2, 20);
    }

    /// What machines without the widest vectors run.
    #[test]
    fn parts_agree_with_the_whole() {
        let (packed, at): (Vec<[f32; ROWS]>, Vec<usize>) = (0..9).map(|k| ([k as f32 - 4.0; ROWS], k * 3)).unzip();
        let x = numbers::<f32>(100, 4);
        let mut whole = [[1.0; COLUMNS]; ROWS];
        let mut parts = whole;
        add::<_, COLUMNS, false>(&packed, &at, &x, &mut whole);
        in_parts::<_, COLUMNS, false>(&packed, &at, &x, &mut parts);
        assert_eq!(whole, parts);
        let mut narrow = [[1.0; 32]; ROWS];
        in_parts::<_, 32, true>(&packed, &at, &x, &mut narrow);
        assert!(narrow.iter().zip(&whole).all(|(n, w)| n[..] == w[..32]));
    }
}
