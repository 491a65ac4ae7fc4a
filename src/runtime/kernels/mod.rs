//! The operators that are ours. Each has a private name, because tract looks operators up by type and ignores the
//! domain, and because tract rewrites patterns of its own quantization operators wrongly.

mod barrier;
mod dequantize;
mod layout;
mod quantize;
mod reduce;
mod requantize;

pub(super) use dequantize::Dequantize;
pub(super) use quantize::Quantize;
pub(super) use requantize::Requantize;

use super::custom::custom;
use tract_onnx::model::OnnxOpRegister;

/// `QuantizeLinear`, in both domains.
pub(super) const QUANTIZE: &str = "Sardonyx.QuantizeLinear";
/// `DequantizeLinear`, in both domains.
pub(super) const DEQUANTIZE: &str = "Sardonyx.DequantizeLinear";
/// `DynamicQuantizeLinear`.
pub(super) const DYNAMIC_QUANTIZE: &str = "Sardonyx.DynamicQuantizeLinear";
/// See [`barrier::Barrier`].
pub(super) const BARRIER: &str = "Sardonyx.Barrier";
/// `ReduceMax` over known axes.
pub(super) const REDUCE_MAX: &str = "Sardonyx.ReduceMax";
/// `ReduceMin` over known axes.
pub(super) const REDUCE_MIN: &str = "Sardonyx.ReduceMin";
/// From an integer accumulator to the quantized result: see [`Requantize`].
pub(super) const REQUANTIZE: &str = "Sardonyx.Requantize";

/// Adds every operator of ours to tract's register, under private names.
pub(super) fn register(register: &mut OnnxOpRegister) {
    register.insert(QUANTIZE, |_, node| Ok(custom(node, Quantize::parse(node)?)));
    register.insert(DEQUANTIZE, |_, node| Ok(custom(node, Dequantize::parse(node)?)));
    register.insert(DYNAMIC_QUANTIZE, |_, node| Ok(custom(node, quantize::DynamicQuantize)));
    register.insert(BARRIER, |_, node| Ok(custom(node, barrier::Barrier)));
    register.insert(REDUCE_MAX, |_, node| Ok(custom(node, reduce::Extreme::parse(node, true)?)));
    register.insert(REDUCE_MIN, |_, node| Ok(custom(node, reduce::Extreme::parse(node, false)?)));
    register.insert(REQUANTIZE, |_, node| Ok(custom(node, Requantize::parse(node)?)));
}
