//! OneHot.

use crate::error::{Error, Result};
use crate::ir::Dim;
use crate::ops::rules::{axis, int, output, vector};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// A new axis that is "on" at each index.
pub struct OneHot;

impl OpSpec for OneHot {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("OneHot", &[9, 11])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let at = int(cx, "axis", -1)?;
        let Some(indices) = cx.shape(0) else { return output(cx.elem(2), None) };
        let at = axis(at, indices.len() + 1)?;
        let depth = match vector(cx, 1).as_deref() {
            Some([Dim::Known(n)]) if *n < 0 => return Err(Error::invalid(format!("its depth is {n}"))),
            Some([depth]) => depth.clone(),
            _ => Dim::Unknown,
        };
        let mut shape = indices.to_vec();
        shape.insert(at, depth);
        output(cx.elem(2), Some(shape))
    }
}
