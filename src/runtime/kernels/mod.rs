//! The operators that are ours. Each has a private name, because tract looks operators up by type and ignores the
//! domain, and because tract rewrites patterns of its own quantization operators wrongly.

mod affine_grid;
mod attention;
mod attention_mask;
mod barrier;
mod batch_norm;
mod bits;
mod causal_conv;
mod center_crop_pad;
mod col2im;
mod common;
mod compress;
mod conv_transpose;
mod cum_prod;
mod deform_conv;
mod depth_space;
mod dequantize;
mod det;
mod einsum;
mod extreme;
mod gather_nd;
mod layout;
mod linear_attention;
mod log_softmax;
mod loss;
mod lp_pool;
mod max_unpool;
mod modulo;
mod nan;
mod one_hot;
mod pad;
mod quantize;
mod recurrent;
mod recurrent_cell;
mod reduce;
mod reduce_log;
mod requantize;
mod resize;
mod resize_axis;
mod reverse_sequence;
mod slice;
mod suppression;
mod tensor_scatter;
mod tf_idf;
mod unique;
mod widen;

pub(super) use dequantize::Dequantize;
pub(super) use quantize::Quantize;
pub(super) use requantize::Requantize;

use super::custom::custom;
use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::{InferenceOp, TractResult};

/// `QuantizeLinear`, in both domains.
pub(super) const QUANTIZE: &str = "Sardonyx.QuantizeLinear";
/// `DequantizeLinear`, in both domains.
pub(super) const DEQUANTIZE: &str = "Sardonyx.DequantizeLinear";
/// `DynamicQuantizeLinear`.
pub(super) const DYNAMIC_QUANTIZE: &str = "Sardonyx.DynamicQuantizeLinear";
/// See [`barrier::Barrier`].
pub(super) const BARRIER: &str = "Sardonyx.Barrier";
/// From an integer accumulator to the quantized result: see [`Requantize`].
pub(super) const REQUANTIZE: &str = "Sardonyx.Requantize";

/// `Relu` that keeps NaN.
pub(super) const RELU: &str = "Sardonyx.Relu";
/// `DynamicQuantizeLSTM` with its weights in float.
pub(super) const DYNAMIC_LSTM: &str = "Sardonyx.DynamicLstm";
/// f16 as f32, and every other type as it is.
pub(super) const WIDEN: &str = "Sardonyx.Widen";

type Build = fn(&ParsingContext, &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// An operator of the default domain, our private name for it, and its kernel.
struct Row(&'static str, &'static str, Build);

/// The operators of the default domain that a kernel of ours computes, with whatever attributes; what a kernel cannot do, it
/// refuses itself.
const OURS: &[Row] = &[
    Row("AffineGrid", "Sardonyx.AffineGrid", |_, n| Ok(custom(n, affine_grid::AffineGrid::parse(n)?))),
    Row("Attention", "Sardonyx.Attention", |_, n| Ok(custom(n, attention::Attention::parse(n)?))),
    Row("BatchNormalization", "Sardonyx.BatchNorm", |_, n| Ok(custom(n, batch_norm::BatchNorm::parse(n)?))),
    Row("BitCast", "Sardonyx.BitCast", |_, n| Ok(custom(n, bits::BitCast::parse(n)?))),
    Row("BitShift", "Sardonyx.BitShift", |_, n| Ok(custom(n, bits::Shift::parse(n)?))),
    Row("CausalConvWithState", "Sardonyx.CausalConv", |_, n| Ok(custom(n, causal_conv::CausalConv::parse(n)?))),
    Row("CenterCropPad", "Sardonyx.CenterCropPad", |_, n| Ok(custom(n, center_crop_pad::CenterCropPad::parse(n)?))),
    Row("Col2Im", "Sardonyx.Col2Im", |_, n| Ok(custom(n, col2im::Col2Im::parse(n)?))),
    Row("Compress", "Sardonyx.Compress", |ctx, n| {
        let kept = ctx.template.symbols.new_with_prefix("kept");
        Ok(custom(n, compress::Compress::parse(n, kept)?))
    }),
    Row("ConvTranspose", "Sardonyx.ConvTranspose", |_, n| Ok(custom(n, conv_transpose::ConvTranspose::parse(n)?))),
    Row("CumProd", "Sardonyx.CumProd", |_, n| Ok(custom(n, cum_prod::CumProd::parse(n)?))),
    Row("DeformConv", "Sardonyx.DeformConv", |_, n| Ok(custom(n, deform_conv::DeformConv::parse(n)?))),
    Row("Det", "Sardonyx.Det", |_, n| Ok(custom(n, det::Det))),
    Row("Einsum", "Sardonyx.Einsum", |_, n| Ok(custom(n, einsum::Einsum::parse(n)?))),
    Row("GRU", "Sardonyx.GRU", |_, n| Ok(custom(n, recurrent::Recurrent::parse(n, "GRU")?))),
    Row("LSTM", "Sardonyx.LSTM", |_, n| Ok(custom(n, recurrent::Recurrent::parse(n, "LSTM")?))),
    Row("GatherND", "Sardonyx.GatherND", |_, n| Ok(custom(n, gather_nd::GatherNd::parse(n)?))),
    Row("HardSigmoid", "Sardonyx.HardSigmoid", |_, n| Ok((nan::Activation::hard_sigmoid(n)?.op(), vec![]))),
    Row("LinearAttention", "Sardonyx.LinearAttention", |_, n| {
        Ok(custom(n, linear_attention::LinearAttention::parse(n)?))
    }),
    Row("LogSoftmax", "Sardonyx.LogSoftmax", |ctx, n| {
        Ok(custom(n, log_softmax::LogSoftmax::parse(n, ctx.onnx_operator_set_version)?))
    }),
    Row("LpPool", "Sardonyx.LpPool", |_, n| Ok(custom(n, lp_pool::LpPool::parse(n)?))),
    Row("Max", "Sardonyx.Max", |_, n| Ok(custom(n, extreme::Extremum { max: true }))),
    Row("MaxUnpool", "Sardonyx.MaxUnpool", |_, n| Ok(custom(n, max_unpool::MaxUnpool::parse(n)?))),
    Row("Min", "Sardonyx.Min", |_, n| Ok(custom(n, extreme::Extremum { max: false }))),
    Row("Mod", "Sardonyx.Mod", |_, n| Ok(custom(n, modulo::Mod::parse(n)?))),
    Row("NegativeLogLikelihoodLoss", "Sardonyx.Loss", |_, n| Ok(custom(n, loss::Loss::parse(n, false)?))),
    Row("NonMaxSuppression", "Sardonyx.NonMaxSuppression", |ctx, n| {
        let selected = ctx.template.symbols.new_with_prefix("selected");
        Ok(custom(n, suppression::NonMaxSuppression::parse(n, selected)?))
    }),
    Row("OneHot", "Sardonyx.OneHot", |_, n| Ok(custom(n, one_hot::OneHot::parse(n)?))),
    Row("Pad", "Sardonyx.Pad", |_, n| Ok(custom(n, pad::Pad::parse(n)?))),
    Row("RNN", "Sardonyx.RNN", |_, n| Ok(custom(n, recurrent::Recurrent::parse(n, "RNN")?))),
    Row("ReduceLogSum", "Sardonyx.ReduceLogSum", |_, n| Ok(custom(n, reduce_log::ReduceLog::parse(n, false)?))),
    Row("ReduceLogSumExp", "Sardonyx.ReduceLogSumExp", |_, n| Ok(custom(n, reduce_log::ReduceLog::parse(n, true)?))),
    Row("ReduceMax", "Sardonyx.ReduceMax", |_, n| Ok(custom(n, reduce::Extreme::parse(n, true)?))),
    Row("ReduceMin", "Sardonyx.ReduceMin", |_, n| Ok(custom(n, reduce::Extreme::parse(n, false)?))),
    Row("Relu", RELU, |_, _| Ok((nan::Activation::Relu.op(), vec![]))),
    Row("Resize", "Sardonyx.Resize", |ctx, n| Ok(custom(n, resize::Resize::parse(n, ctx.onnx_operator_set_version)?))),
    Row("ReverseSequence", "Sardonyx.ReverseSequence", |_, n| {
        Ok(custom(n, reverse_sequence::ReverseSequence::parse(n)?))
    }),
    Row("ScatterND", "Sardonyx.ScatterND", |_, n| Ok(custom(n, gather_nd::ScatterNd::parse(n)?))),
    Row("Sigmoid", "Sardonyx.Sigmoid", |_, _| Ok((nan::Activation::Sigmoid.op(), vec![]))),
    Row("Slice", "Sardonyx.Slice", |_, n| Ok(custom(n, slice::Slice::parse(n)?))),
    Row("SoftmaxCrossEntropyLoss", "Sardonyx.SoftmaxLoss", |_, n| Ok(custom(n, loss::Loss::parse(n, true)?))),
    Row("SpaceToDepth", "Sardonyx.SpaceToDepth", |_, n| Ok(custom(n, depth_space::SpaceToDepth::parse(n)?))),
    Row("Tanh", "Sardonyx.Tanh", |_, _| Ok((nan::Activation::Tanh.op(), vec![]))),
    Row("TensorScatter", "Sardonyx.TensorScatter", |_, n| Ok(custom(n, tensor_scatter::TensorScatter::parse(n)?))),
    Row("TfIdfVectorizer", "Sardonyx.TfIdf", |_, n| Ok(custom(n, tf_idf::TfIdf::parse(n)?))),
    Row("Unique", "Sardonyx.Unique", |ctx, n| {
        let found = ctx.template.symbols.new_with_prefix("found");
        Ok(custom(n, unique::Unique::parse(n, found)?))
    }),
    Row("Upsample", "Sardonyx.Upsample", |_, n| Ok(custom(n, resize::Resize::parse_upsample(n)?))),
];

/// Our private name for an operator of the default domain, if a kernel of ours computes it.
pub(super) fn private(op_type: &str) -> Option<&'static str> {
    OURS.iter().find(|row| row.0 == op_type).map(|row| row.1)
}

/// Adds every operator of ours to tract's register, under private names.
pub(super) fn register(register: &mut OnnxOpRegister) {
    for Row(_, name, build) in OURS {
        register.insert(name, *build);
    }
    register.insert(WIDEN, |_, node| Ok(custom(node, widen::Widen)));
    register.insert(QUANTIZE, |_, node| Ok(custom(node, Quantize::parse(node)?)));
    register.insert(DEQUANTIZE, |_, node| Ok(custom(node, Dequantize::parse(node)?)));
    register.insert(DYNAMIC_QUANTIZE, |_, node| Ok(custom(node, quantize::DynamicQuantize)));
    register.insert(DYNAMIC_LSTM, |_, node| Ok(custom(node, recurrent::Recurrent::parse_dynamic(node)?)));
    register.insert(BARRIER, |_, node| Ok(custom(node, barrier::Barrier)));
    register.insert(REQUANTIZE, |_, node| Ok(custom(node, Requantize::parse(node)?)));
}
