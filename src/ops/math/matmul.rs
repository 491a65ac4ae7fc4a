//! MatMul.

use crate::error::{Error, Result};
use crate::ir::{Dim, Type};
use crate::ops::axes::{AxisFact, AxisLinks, LinkContext, input, output as out};
use crate::ops::rules::{broadcast, count, is_f32, output};
use crate::ops::spec::{ComputeRole, InferContext, Inferred, OpSpec, QuantRole, Schema, op};

/// Matrix product with numpy's semantics.
pub struct MatMul;

/// Output shape of numpy's `matmul` of inputs `a` and `b`; `None` where a rank is unknown.
pub fn matmul_shape(cx: &InferContext, a: usize, b: usize) -> Result<Option<Vec<Dim>>> {
    let (Some(a), Some(b)) = (cx.shape(a), cx.shape(b)) else { return Ok(None) };
    let ([a_batch @ .., a_inner], false) = (a, b.is_empty()) else {
        return Err(Error::invalid("an operand is a scalar"));
    };
    let b_inner = &b[b.len().saturating_sub(2)];
    if let (Dim::Known(x), Dim::Known(y)) = (a_inner, b_inner)
        && x != y
    {
        return Err(Error::invalid(format!("inner dimensions {x} and {y} differ")));
    }
    // A vector acts as a matrix with one row (left) or column (right), which the result then lacks.
    let (a_batch, rows) = match a_batch {
        [batch @ .., rows] => (batch, Some(rows)),
        [] => (&[][..], None),
    };
    let (b_batch, columns) = match b {
        [batch @ .., _, columns] => (batch, Some(columns)),
        _ => (&[][..], None),
    };
    let mut shape = broadcast(a_batch, b_batch)?;
    shape.extend(rows.cloned());
    shape.extend(columns.cloned());
    Ok(Some(shape))
}

/// Output elements times the inner dimension.
pub fn matmul_macs(cx: &InferContext, a: usize, b: usize, outputs: &[Option<&Type>]) -> Option<u64> {
    let out = outputs.first().copied().flatten()?.shape()?;
    let b_inner = cx.shape(b).and_then(|b| b.get(b.len().saturating_sub(2)));
    let a_inner = cx.shape(a).and_then(|a| a.last());
    let known = [b_inner, a_inner].into_iter().flatten().find(|d| d.known().is_some());
    let inner = known.or(b_inner).or(a_inner)?;
    Some(count(out).saturating_mul(count(std::slice::from_ref(inner))))
}

impl OpSpec for MatMul {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("MatMul", &[1, 9, 13])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(cx.elem(0), matmul_shape(cx, 0, 1)?)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if !is_f32(cx, 0) || cx.shape(1).map(<[Dim]>::len) != Some(2) {
            return QuantRole::Opaque;
        }
        QuantRole::Compute(ComputeRole { activation: 0, weight: 1, bias: None, weight_axis: 1 })
    }

    fn macs(&self, cx: &InferContext, outputs: &[Option<&Type>]) -> Option<u64> {
        matmul_macs(cx, 0, 1, outputs)
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let (a, b) = (cx.rank(0)?, cx.rank(1)?);
        if a == 0 || b == 0 {
            return None;
        }
        let mut links = AxisLinks::default();
        links.same(input(0, a - 1), input(1, b.saturating_sub(2)));
        let rank = cx.out_rank(0)?;
        // Rows and columns, where the operand is no vector.
        let (rows, columns) = (usize::from(a > 1), usize::from(b > 1));
        if rows == 1 {
            links.same(input(0, a - 2), out(0, rank.checked_sub(1 + columns)?));
        }
        if columns == 1 {
            links.same(input(1, b - 1), out(0, rank.checked_sub(1)?));
        }
        let batch = rank.checked_sub(rows + columns)?;
        let dynamic = cx.cx.constant(0).is_none() && cx.cx.constant(1).is_none();
        for (k, n) in [(0, a.saturating_sub(2)), (1, b.saturating_sub(2))] {
            for at in 0..n {
                let (from, to) = (input(k, at), out(0, (at + batch).checked_sub(n)?));
                if cx.equal(from, to) {
                    links.same(from, to);
                } else if cx.size(from) == Some(1) {
                    links.free(from);
                }
            }
        }
        if dynamic {
            links.0.extend((0..batch).map(|k| AxisFact::Batch(out(0, k))));
        }
        Some(links)
    }
}
