//! Gemm.

use crate::error::{Error, Result};
use crate::ir::{Dim, Type};
use crate::math::Unfold;
use crate::ops::rules::{changed, count, float, int, is_f32, output, without};
use crate::ops::spec::{
    ComputeRole, InferContext, Inferred, OpSpec, Purpose, QuantRole, Schema, Upgrade, WeightRole, op,
};

/// `alpha * A' * B' + beta * C`.
pub struct Gemm;

/// Rows and columns of input `k` after its optional transposition.
pub fn matrix(cx: &InferContext, k: usize, transposed: &str) -> Result<Option<(Dim, Dim)>> {
    match cx.shape(k) {
        None => Ok(None),
        Some([a, b]) if int(cx, transposed, 0)? != 0 => Ok(Some((b.clone(), a.clone()))),
        Some([a, b]) => Ok(Some((a.clone(), b.clone()))),
        Some(s) => Err(Error::invalid(format!("input {k} has rank {}, expected 2", s.len()))),
    }
}

/// Output shape of a product of the matrices at inputs `a` and `b`.
pub fn gemm_shape(cx: &InferContext, a: usize, b: usize) -> Result<Option<Vec<Dim>>> {
    let (left, right) = (matrix(cx, a, "transA")?, matrix(cx, b, "transB")?);
    if let (Some((_, Dim::Known(x))), Some((Dim::Known(y), _))) = (&left, &right)
        && x != y
    {
        return Err(Error::invalid(format!("inner dimensions {x} and {y} differ")));
    }
    let rows = left.map_or(Dim::Unknown, |m| m.0);
    Ok(Some(vec![rows, right.map_or(Dim::Unknown, |m| m.1)]))
}

/// Output elements times the inner dimension.
pub fn gemm_macs(cx: &InferContext, a: usize, b: usize, outputs: &[Option<&Type>]) -> Option<u64> {
    let out = outputs.first().copied().flatten()?.shape()?;
    let inner = match (matrix(cx, b, "transB").ok()?, matrix(cx, a, "transA").ok()?) {
        (Some((inner, _)), _) | (None, Some((_, inner))) => inner,
        _ => return None,
    };
    Some(count(out).saturating_mul(count(&[inner])))
}

impl OpSpec for Gemm {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Gemm", &[1, 6, 7, 9, 11, 13])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(cx.elem(0), gemm_shape(cx, 0, 1)?)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        let plain = |name| float(cx, name, 1.0).is_ok_and(|x| x == 1.0);
        let untransposed = int(cx, "transA", 0).is_ok_and(|t| t == 0);
        let Ok(trans_b) = int(cx, "transB", 0) else { return QuantRole::Opaque };
        if !is_f32(cx, 0) || !untransposed || !plain("alpha") || !plain("beta") {
            return QuantRole::Opaque;
        }
        let weight_axis = if trans_b != 0 { 0 } else { 1 };
        QuantRole::Compute(ComputeRole { activation: 0, weight: 1, bias: Some(2), weight_axis })
    }

    fn weight(&self, cx: &InferContext) -> Option<WeightRole> {
        let (trans_a, trans_b) = (int(cx, "transA", 0).ok()? != 0, int(cx, "transB", 0).ok()? != 0);
        let (channel_axis, block_axis) = if trans_b { (0, 1) } else { (1, 0) };
        let unfold = (!trans_a).then_some((0, Unfold::Last));
        Some(WeightRole { slot: 1, channel_axis, block_axis, purpose: Purpose::Product(unfold) })
    }

    fn macs(&self, cx: &InferContext, outputs: &[Option<&Type>]) -> Option<u64> {
        gemm_macs(cx, 0, 1, outputs)
    }

    fn upgrade(&self, cx: &InferContext, _to: i64) -> Upgrade {
        // Before 7 an attribute asked for broadcasting, which aligned C at the last axis as now.
        if cx.opset < 7 && cx.node.attribute("broadcast").is_some() {
            return changed(without(cx.node, &["broadcast"]));
        }
        Upgrade::Same
    }
}
