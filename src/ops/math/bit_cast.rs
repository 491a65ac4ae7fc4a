//! BitCast.

use crate::error::{Error, Result};
use crate::ir::Dim;
use crate::ops::rules::{elem_attribute, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// The bits of each element read as another type of the same width.
pub struct BitCast;

impl OpSpec for BitCast {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("BitCast", &[26])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let to = elem_attribute(cx, "to")?.ok_or_else(|| Error::invalid("attribute \"to\" is missing"))?;
        output(Some(to), cx.shape(0).map(<[Dim]>::to_vec))
    }
}
