//! MatMul.

use crate::error::{Error, Result};
use crate::ir::{Dim, Type};
use crate::math::{Array, Unfold, View, broadcast_dims, gemm, matmul, reduce_to};
use crate::ops::axes::{AxisFact, AxisLinks, LinkContext, input, output as out};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{broadcast, count, is_f32, output};
use crate::ops::spec::{
    ComputeRole, InferContext, Inferred, OpSpec, Purpose, QuantRole, Schema, StoredRole, WeightRole, op,
};
use rayon::prelude::*;

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

    fn gradient(&self, _cx: &InferContext) -> Option<Rule> {
        rule!(forward, backward)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if !is_f32(cx, 0) || cx.shape(1).map(<[Dim]>::len) != Some(2) {
            return QuantRole::Opaque;
        }
        QuantRole::Compute(ComputeRole { activation: 0, weight: 1, bias: None, weight_axis: 1 })
    }

    /// Either operand, batched or not.
    fn stored_weights(&self, cx: &InferContext) -> Vec<StoredRole> {
        let rank = |slot| cx.shape(slot).map_or(0, <[Dim]>::len);
        let role = |slot: usize| {
            let from_end = if slot == 0 { 2 } else { 1 };
            (rank(slot) >= 2).then(|| StoredRole { slot, rows: vec![rank(slot) - from_end] })
        };
        if is_f32(cx, 0) { [1, 0].into_iter().filter_map(role).collect() } else { vec![] }
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

/// Matrices of one operand: the elements, where each matrix begins, and its layout.
type Stack<'a, T> = (&'a [T], &'a dyn Fn(usize) -> usize, (usize, usize));

/// Both operands as batches of matrices.
struct Batches {
    /// Shape of the batch axes of the result.
    batch: Vec<usize>,
    /// Rows, inner size, columns.
    sizes: (usize, usize, usize),
    /// Shapes of the operands with the axes that a vector lacks.
    shapes: [Vec<usize>; 2],
    /// First element of each matrix, per operand.
    starts: [Vec<usize>; 2],
}

impl Batches {
    fn new(a: &[usize], b: &[usize]) -> Result<Self> {
        let (a, b) = (
            if a.len() == 1 { vec![1, a[0]] } else { a.to_vec() },
            if b.len() == 1 { vec![b[0], 1] } else { b.to_vec() },
        );
        let ([a_batch @ .., m, k], [b_batch @ .., k_b, n]) = (&a[..], &b[..]) else {
            return Err(Error::invalid("an operand is a scalar"));
        };
        let batch = broadcast_dims(a_batch, b_batch).filter(|_| k == k_b);
        let batch = batch.ok_or_else(|| Error::invalid(format!("shapes {a:?} and {b:?} do not multiply")))?;
        let starts = |own: &[usize], size: usize| {
            let view = View::dense(own).broadcast(&batch);
            let at = |i: usize| {
                let mut i = i;
                let mut at = 0;
                for (d, s) in batch.iter().zip(&view.strides).rev() {
                    at += i % d * *s as usize;
                    i /= d;
                }
                at * size
            };
            (0..batch.iter().product()).map(at).collect()
        };
        let starts = [starts(a_batch, m * k), starts(b_batch, k * n)];
        Ok(Self { sizes: (*m, *k, *n), starts, batch: batch.clone(), shapes: [a, b] })
    }

    /// Whether the right operand is one matrix: then all rows of the left one are rows of one matrix too.
    fn shares_right(&self) -> bool {
        self.shapes[1].len() == 2 && self.shapes[0].len() > 1
    }

    fn rows(&self) -> usize {
        self.batch.iter().product::<usize>() * self.sizes.0
    }

    /// The product of matrix `i` of two operands, for each `i`, in parallel.
    fn each<T: Element>(
        &self,
        sizes: (usize, usize, usize),
        (a, a_at, la): Stack<T>,
        (b, b_at, lb): Stack<T>,
    ) -> Vec<T> {
        let (m, _, n) = sizes;
        let count: usize = self.batch.iter().product();
        let mut c = vec![T::zero(); count * m * n];
        let starts: Vec<(usize, usize)> = (0..count).map(|i| (a_at(i), b_at(i))).collect();
        if m * n > 0 {
            c.par_chunks_mut(m * n).zip(starts).for_each(|(c, (i, j))| {
                gemm(sizes, T::one(), (&a[i..], la), (&b[j..], lb), T::zero(), (c, (n, 1)));
            });
        }
        c
    }

    fn stacked(&self, rows: usize, columns: usize) -> Vec<usize> {
        [&self.batch[..], &[rows, columns]].concat()
    }
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let (a, b) = (f.float(0)?, f.float(1)?);
    let p = Batches::new(a.dims(), b.dims())?;
    let (m, k, n) = p.sizes;
    let y = if p.shares_right() {
        let mut y = vec![T::zero(); p.rows() * n];
        matmul((p.rows(), k, n), T::one(), (a.data(), (k, 1)), (b.data(), (n, 1)), T::zero(), &mut y);
        y
    } else {
        let (a_at, b_at) = (|i: usize| p.starts[0][i], |i: usize| p.starts[1][i]);
        p.each((m, k, n), (a.data(), &a_at, (k, 1)), (b.data(), &b_at, (n, 1)))
    };
    Ok(Computed::one(Array::new(&f.shape()?, y)))
}

fn backward<T: Element>(g: &Backward<T>) -> Result<Gradients<T>> {
    let (a, b, dy) = (g.float(0)?, g.float(1)?, g.grad()?);
    let p = Batches::new(a.dims(), b.dims())?;
    let (m, k, n) = p.sizes;
    let dy_at = |i: usize| i * m * n;
    let mut grads = vec![None, None];
    if p.shares_right() {
        let (rows, one) = (p.rows(), T::one());
        if g.wants(0) {
            let mut da = Array::zeros(a.dims());
            matmul((rows, n, k), one, (dy.data(), (n, 1)), (b.data(), (1, n)), T::zero(), da.data_mut());
            grads[0] = Some(da);
        }
        if g.wants(1) {
            let mut db = Array::zeros(b.dims());
            matmul((k, rows, n), one, (a.data(), (1, k)), (dy.data(), (n, 1)), T::zero(), db.data_mut());
            grads[1] = Some(db);
        }
        return Ok(grads);
    }
    if g.wants(0) {
        let b_at = |i: usize| p.starts[1][i];
        let da = p.each((m, n, k), (dy.data(), &dy_at, (n, 1)), (b.data(), &b_at, (1, n)));
        let da = reduce_to(Array::new(&p.stacked(m, k), da), &p.shapes[0]);
        grads[0] = Some(da.reshaped(a.dims()));
    }
    if g.wants(1) {
        let a_at = |i: usize| p.starts[0][i];
        let db = p.each((k, m, n), (a.data(), &a_at, (1, k)), (dy.data(), &dy_at, (n, 1)));
        let db = reduce_to(Array::new(&p.stacked(k, n), db), &p.shapes[1]);
        grads[1] = Some(db.reshaped(b.dims()));
    }
    Ok(grads)
}
