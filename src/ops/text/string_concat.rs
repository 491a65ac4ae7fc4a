//! StringConcat.

use crate::error::Result;
use crate::ir::DType;
use crate::ops::rules::{broadcast_inputs, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Joins strings pairwise, with numpy's broadcasting.
pub struct StringConcat;

impl OpSpec for StringConcat {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("StringConcat", &[20])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(Some(DType::String), broadcast_inputs(cx, 0..2)?)
    }
}
