//! Means and their roots, as normalizations are written.

use super::matching::Look;
use crate::ir::{NodeId, ValueId};

/// `value / Sqrt(variance + epsilon)`.
pub(super) struct Normalizer {
    pub value: ValueId,
    pub variance: ValueId,
    pub epsilon: f32,
}

impl Normalizer {
    /// What node `id` computes: a Div by the root, or a Mul by its Reciprocal (or by 1 divided by it).
    pub fn of(look: Look, id: NodeId) -> Option<Self> {
        if look.is_op(id, "Div") {
            let (value, root) = look.operands(id)?;
            return Self::under_root(look, value, root);
        }
        let times = |&(value, inverse): &(ValueId, ValueId)| {
            let root = match look.inner(inverse, "Reciprocal") {
                Some(reciprocal) => look.graph.input(reciprocal, 0)?,
                None => {
                    let (one, root) = look.operands(look.inner(inverse, "Div")?)?;
                    look.scalar(one).filter(|s| s.value == 1.0 && look.keeps_shape(root, s.rank))?;
                    root
                }
            };
            Self::under_root(look, value, root)
        };
        look.either_way(id).iter().flatten().find_map(times)
    }

    fn under_root(look: Look, value: ValueId, root: ValueId) -> Option<Self> {
        let sum = look.graph.input(look.inner(root, "Sqrt")?, 0)?;
        let add = look.inner(sum, "Add")?;
        let is_epsilon = |&(v, e): &(ValueId, ValueId)| {
            let e = look.scalar(e).filter(|e| look.keeps_shape(v, e.rank) && e.value >= 0.0)?;
            Some((v, e.value as f32))
        };
        let (variance, epsilon) = look.either_way(add).iter().flatten().find_map(is_epsilon)?;
        Some(Self { value, variance, epsilon })
    }
}

/// Where `v` is the mean of the squares of `x`, needed by nobody else: how many uses of `x` that makes, and the axes.
pub(super) fn mean_square(look: Look, v: ValueId, x: ValueId) -> Option<(usize, Vec<i64>)> {
    let (squares, axes) = reduce_mean(look, look.inner(v, "ReduceMean")?)?;
    if let Some(pow) = look.inner(squares, "Pow") {
        let (base, exponent) = look.operands(pow)?;
        let two = look.scalar(exponent).is_some_and(|s| s.value == 2.0 && look.keeps_shape(x, s.rank));
        return (base == x && two).then_some((1, axes));
    }
    let (a, b) = look.operands(look.inner(squares, "Mul")?)?;
    ((a, b) == (x, x)).then_some((2, axes))
}

/// What a ReduceMean that keeps its axes reduces, and over which axes.
pub(super) fn reduce_mean(look: Look, id: NodeId) -> Option<(ValueId, Vec<i64>)> {
    let node = look.graph.node(id);
    let axes = match look.graph.input(id, 1) {
        Some(axes) => look.constant(axes)?.to_i64().ok()?,
        None => node.ints("axes")?.to_vec(),
    };
    let kept = node.int("keepdims").unwrap_or(1) != 0 && !axes.is_empty();
    kept.then_some((look.graph.input(id, 0)?, axes))
}

/// Sizes of the axes, where they are the last ones of `x`, each once.
pub(super) fn last_axes(look: Look, x: ValueId, axes: &[i64]) -> Option<Vec<usize>> {
    let shape = look.graph.ty(x)?.shape()?;
    let rank = i64::try_from(shape.len()).ok()?;
    let mut positions: Vec<i64> = axes.iter().map(|&a| if a < 0 { a.saturating_add(rank) } else { a }).collect();
    positions.sort_unstable();
    let first = rank.checked_sub(i64::try_from(positions.len()).ok()?)?;
    let last = positions.iter().copied().eq(first..rank) && first >= 0;
    let dims: Option<Vec<usize>> = shape.get(usize::try_from(first).ok()?..)?.iter().map(|d| d.known()).collect();
    dims.filter(|d| last && d.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).is_some_and(|n| n > 0 && n <= 1 << 20))
}
