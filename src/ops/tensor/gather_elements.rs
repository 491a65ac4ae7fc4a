//! GatherElements.

use crate::error::{Error, Result};
use crate::ir::Dim;
use crate::ops::rules::output;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Picks one element per index.
pub struct GatherElements;

impl OpSpec for GatherElements {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("GatherElements", &[11, 13])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        if let (Some(a), Some(b)) = (cx.shape(0), cx.shape(1))
            && a.len() != b.len()
        {
            return Err(Error::invalid(format!("data of rank {} but indices of rank {}", a.len(), b.len())));
        }
        output(cx.elem(0), cx.shape(1).map(<[Dim]>::to_vec))
    }
}
