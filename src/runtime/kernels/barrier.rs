//! A value that tract must not see through.

use super::super::custom::{Fact, Kernel};
use super::layout::required;
use tract_onnx::tract_hir::internal::*;

/// The input itself, never folded. tract merges equal constants, and its Scan fails where two states start from one.
#[derive(Debug)]
pub(super) struct Barrier;

impl Kernel for Barrier {
    fn name(&self) -> &'static str {
        super::BARRIER
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        Ok(tvec![required(inputs, 0)?])
    }

    fn foldable(&self) -> bool {
        false
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        Ok(tvec![required(inputs, 0)?.clone()])
    }
}
