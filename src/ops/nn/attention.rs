//! Attention of the standard.

use crate::error::{Error, Result};
use crate::ir::Dim;
use crate::ops::rules::{add_dims, div_dim, int, mul_dims, size};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Scaled dot products of queries and keys, normalized, times values; with a cache of keys and values.
pub struct Attention;

impl OpSpec for Attention {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Attention", &[23, 24, 25])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let Some(q) = cx.shape(0) else { return Ok(vec![Inferred::tensor(cx.elem(0), None)]) };
        let heads = Heads::of(cx, q.len())?;
        let total = heads.total(cx);
        let y = if q.len() == 3 {
            let width = mul_dims(&heads.queries, &heads.value_size);
            vec![q[0].clone(), q[1].clone(), width]
        } else {
            vec![q[0].clone(), q[1].clone(), q[2].clone(), heads.value_size.clone()]
        };
        let cache = |size: &Dim, elem| {
            let dims = vec![q[0].clone(), heads.keys.clone(), total.clone(), size.clone()];
            Inferred::tensor(elem, Some(dims))
        };
        let scores = vec![q[0].clone(), heads.queries.clone(), heads.steps.clone(), total.clone()];
        Ok(vec![
            Inferred::tensor(cx.elem(0), Some(y)),
            cache(&heads.key_size, cx.elem(1)),
            cache(&heads.value_size, cx.elem(2)),
            Inferred::tensor(cx.elem(0), Some(scores)),
        ])
    }
}

struct Heads {
    queries: Dim,
    keys: Dim,
    steps: Dim,
    key_steps: Dim,
    key_size: Dim,
    value_size: Dim,
}

impl Heads {
    /// Of queries, keys and values `[batch, steps, heads * size]` or `[batch, heads, steps, size]`.
    fn of(cx: &InferContext, rank: usize) -> Result<Self> {
        if rank == 4 {
            return Ok(Self {
                queries: size(cx, 0, 1),
                keys: size(cx, 1, 1),
                steps: size(cx, 0, 2),
                key_steps: size(cx, 1, 2),
                key_size: size(cx, 1, 3),
                value_size: size(cx, 2, 3),
            });
        }
        let (queries, keys) = (int(cx, "q_num_heads", 0)?, int(cx, "kv_num_heads", 0)?);
        if rank != 3 || queries < 1 || keys < 1 {
            return Err(Error::invalid(format!("queries of rank {rank} with {queries} and {keys} heads")));
        }
        Ok(Self {
            queries: Dim::Known(queries),
            keys: Dim::Known(keys),
            steps: size(cx, 0, 1),
            key_steps: size(cx, 1, 1),
            key_size: div_dim(&size(cx, 1, 2), keys),
            value_size: div_dim(&size(cx, 2, 2), keys),
        })
    }

    /// Steps in the cache after this call.
    fn total(&self, cx: &InferContext) -> Dim {
        if cx.present(4) { add_dims(&size(cx, 4, 2), &self.key_steps) } else { self.key_steps.clone() }
    }
}
