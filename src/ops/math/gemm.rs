//! Gemm.

use crate::error::{Error, Result};
use crate::ir::{Dim, Type};
use crate::math::{Array, Unfold, View, matmul, reduce_to};
use crate::ops::axes::{AxisLinks, LinkContext, input, output as out};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{changed, count, float, int, is_f32, output, without};
use crate::ops::spec::{
    ComputeRole, InferContext, Inferred, OpSpec, Purpose, QuantRole, Schema, StoredRole, Upgrade, WeightRole, op,
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

    fn gradient(&self, _cx: &InferContext) -> Option<Rule> {
        rule!(forward, backward)
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

    /// Either matrix, whatever the factors.
    fn stored_weights(&self, cx: &InferContext) -> Vec<StoredRole> {
        let (Ok(trans_a), Ok(trans_b), true) = (int(cx, "transA", 0), int(cx, "transB", 0), is_f32(cx, 0)) else {
            return vec![];
        };
        let right = StoredRole { slot: 1, rows: vec![usize::from(trans_b == 0)] };
        vec![right, StoredRole { slot: 0, rows: vec![usize::from(trans_a != 0)] }]
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

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let (a, b) = (int(cx.cx, "transA", 0).ok()? != 0, int(cx.cx, "transB", 0).ok()? != 0);
        let mut links = AxisLinks::default();
        links.same(input(0, usize::from(a)), out(0, 0));
        links.same(input(0, usize::from(!a)), input(1, usize::from(b)));
        links.same(input(1, usize::from(!b)), out(0, 1));
        if cx.cx.present(2) {
            let shift = 2usize.checked_sub(cx.rank(2)?)?;
            for k in 0..2 - shift {
                let (from, to) = (input(2, k), out(0, k + shift));
                if cx.equal(from, to) {
                    links.same(from, to);
                } else if cx.size(from) == Some(1) {
                    links.free(from);
                }
            }
        }
        Some(links)
    }
}

/// Rows, inner size, columns; the layouts of `A` and `B` after transposition; alpha and beta.
struct Product<T> {
    sizes: (usize, usize, usize),
    a: (usize, usize),
    b: (usize, usize),
    transposed: (bool, bool),
    alpha: T,
    beta: T,
}

fn product<T: Element>(cx: &InferContext, a: &[usize], b: &[usize]) -> Result<Product<T>> {
    let (ta, tb) = (int(cx, "transA", 0)? != 0, int(cx, "transB", 0)? != 0);
    let ([a0, a1], [b0, b1]) = (a, b) else { return Err(Error::invalid("its operands are no matrices")) };
    let (m, k) = if ta { (*a1, *a0) } else { (*a0, *a1) };
    let n = if tb { *b0 } else { *b1 };
    Ok(Product {
        sizes: (m, k, n),
        a: if ta { (1, m) } else { (k, 1) },
        b: if tb { (1, k) } else { (n, 1) },
        transposed: (ta, tb),
        alpha: T::of(float(cx, "alpha", 1.0)?.into()),
        beta: T::of(float(cx, "beta", 1.0)?.into()),
    })
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let (a, b) = (f.float(0)?, f.float(1)?);
    let p = product::<T>(f.cx, a.dims(), b.dims())?;
    let dims = [p.sizes.0, p.sizes.2];
    let (mut y, beta) = match f.optional(2) {
        Some(c) => (View::dense(c.dims()).broadcast(&dims).read(c.data()), p.beta),
        None => (vec![T::zero(); dims[0] * dims[1]], T::zero()),
    };
    matmul(p.sizes, p.alpha, (a.data(), p.a), (b.data(), p.b), beta, &mut y);
    Ok(Computed::one(Array::new(&dims, y)))
}

fn backward<T: Element>(g: &Backward<T>) -> Result<Gradients<T>> {
    let (a, b, dy) = (g.float(0)?, g.float(1)?, g.grad()?);
    let p = product::<T>(g.cx, a.dims(), b.dims())?;
    let (m, k, n) = p.sizes;
    let (straight, turned) = ((n, 1), (1, n));
    let flip = |l: (usize, usize)| (l.1, l.0);
    let mut grads = vec![None; g.inputs.len()];
    if g.wants(0) {
        let mut da = Array::zeros(a.dims());
        let (b, dy) = (b.data(), dy.data());
        match p.transposed.0 {
            false => matmul((m, n, k), p.alpha, (dy, straight), (b, flip(p.b)), T::zero(), da.data_mut()),
            true => matmul((k, n, m), p.alpha, (b, p.b), (dy, turned), T::zero(), da.data_mut()),
        }
        grads[0] = Some(da);
    }
    if g.wants(1) {
        let mut db = Array::zeros(b.dims());
        let (a, dy) = (a.data(), dy.data());
        match p.transposed.1 {
            false => matmul((k, m, n), p.alpha, (a, flip(p.a)), (dy, straight), T::zero(), db.data_mut()),
            true => matmul((n, m, k), p.alpha, (dy, turned), (a, p.a), T::zero(), db.data_mut()),
        }
        grads[1] = Some(db);
    }
    if g.wants(2) {
        grads[2] = Some(reduce_to(dy.map(|d| d * p.beta), g.float(2)?.dims()));
    }
    Ok(grads)
}
