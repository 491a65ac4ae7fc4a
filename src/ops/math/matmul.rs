//! MatMul.

use crate::error::{Error, Result};
use crate::ir::{Dim, Type};
use crate::math::Unfold;
use crate::ops::rules::{broadcast, count, is_f32, output};
use crate::ops::spec::{ComputeRole, InferContext, Inferred, OpSpec, Purpose, QuantRole, Schema, WeightRole, op};

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

    fn weight(&self, cx: &InferContext) -> Option<WeightRole> {
        if cx.shape(1).map(<[Dim]>::len) != Some(2) {
            return None;
        }
        let purpose = Purpose::Product(Some((0, Unfold::Last)));
        Some(WeightRole { slot: 1, channel_axis: 1, block_axis: 0, purpose })
    }

    fn macs(&self, cx: &InferContext, outputs: &[Option<&Type>]) -> Option<u64> {
        matmul_macs(cx, 0, 1, outputs)
    }
}
