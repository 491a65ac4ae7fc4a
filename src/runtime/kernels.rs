//! The operators that are ours.

use tract_onnx::model::OnnxOpRegister;

/// Adds every operator of ours to tract's register, under private names.
pub(super) fn register(_register: &mut OnnxOpRegister) {}
