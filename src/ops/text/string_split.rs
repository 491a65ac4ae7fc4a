//! StringSplit.

use crate::error::Result;
use crate::ir::{DType, Dim};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Cuts strings into pieces, along a new axis, and says how many each one has.
pub struct StringSplit;

impl OpSpec for StringSplit {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("StringSplit", &[20])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let shape = cx.shape(0).map(<[Dim]>::to_vec);
        let pieces = shape.clone().map(|s| [s, vec![Dim::Unknown]].concat());
        Ok(vec![Inferred::tensor(Some(DType::String), pieces), Inferred::tensor(Some(DType::I64), shape)])
    }
}
