//! What passes ask of a runtime: passes never see one.

use crate::error::Result;
use crate::ir::{Node, Tensor};

/// Computes a single node.
pub trait Evaluator {
    /// The outputs by slot, as many as `outputs`, of `node` in version `opset` of its domain's operator set. Inputs come
    /// by slot, absent optional ones as `None`.
    ///
    /// # Errors
    /// An operator that cannot be computed faithfully, and inputs that it does not take.
    fn evaluate(&self, node: &Node, opset: i64, inputs: &[Option<Tensor>], outputs: usize) -> Result<Vec<Tensor>>;
}
