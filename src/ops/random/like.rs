//! RandomNormalLike, RandomUniformLike and Bernoulli.

use crate::error::Result;
use crate::ir::Dim;
use crate::ops::rules::{elem_attribute, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Random numbers in the shape of the input.
pub struct Like;

impl OpSpec for Like {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("RandomNormalLike", &[1, 22]), op("RandomUniformLike", &[1, 22]), op("Bernoulli", &[15, 22])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(elem_attribute(cx, "dtype")?.or(cx.elem(0)), cx.shape(0).map(<[Dim]>::to_vec))
    }

    fn deterministic(&self) -> bool {
        false
    }
}
