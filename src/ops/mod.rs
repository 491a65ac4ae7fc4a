//! Every fact about every operator. One op, one file; a family whose facts are identical is one file with a table.

pub mod control;
pub mod logic;
pub mod math;
pub mod nn;
pub mod quant;
pub mod reduce;
mod rules;
pub mod spec;
pub mod tensor;
mod versions;
mod window;

use crate::ir::OpId;
pub use rules::{DATA_LIMIT, merge_dim};
pub use versions::redefined;

use spec::{OpKey, OpSpec};
use std::collections::HashMap;
use std::sync::OnceLock;

/// One line per file.
static REGISTRY: &[&dyn OpSpec] = &[
    &control::bodies::Bodies,
    &logic::compare::Compare,
    &logic::predicate::Predicate,
    &logic::select::Where,
    &math::arithmetic::Arithmetic,
    &math::einsum::Einsum,
    &math::gemm::Gemm,
    &math::matmul::MatMul,
    &math::unary::Unary,
    &nn::batch_norm::BatchNormalization,
    &nn::clip::Clip,
    &nn::conv::Conv,
    &nn::conv_transpose::ConvTranspose,
    &nn::dropout::Dropout,
    &nn::global_pool::GlobalPool,
    &nn::layer_norm::LayerNormalization,
    &nn::norm::Norm,
    &nn::pool::Pool,
    &nn::recurrent::Recurrent,
    &nn::relu::Relu,
    &nn::softmax::Softmax,
    &quant::conv_integer::ConvInteger,
    &quant::dequantize_linear::DequantizeLinear,
    &quant::dynamic_quantize_linear::DynamicQuantizeLinear,
    &quant::matmul_integer::MatMulInteger,
    &quant::qgemm::QGemm,
    &quant::qlinear_concat::QLinearConcat,
    &quant::qlinear_conv::QLinearConv,
    &quant::qlinear_elementwise::QLinearElementwise,
    &quant::qlinear_matmul::QLinearMatMul,
    &quant::qlinear_pool::QLinearPool,
    &quant::quantize_linear::QuantizeLinear,
    &reduce::arg::Arg,
    &reduce::reduction::Reduction,
    &tensor::cast::Cast,
    &tensor::concat::Concat,
    &tensor::constant::Constant,
    &tensor::constant_of_shape::ConstantOfShape,
    &tensor::depth_space::DepthSpace,
    &tensor::expand::Expand,
    &tensor::flatten::Flatten,
    &tensor::gather::Gather,
    &tensor::gather_elements::GatherElements,
    &tensor::gather_nd::GatherNd,
    &tensor::identity::Identity,
    &tensor::in_place::InPlace,
    &tensor::non_zero::NonZero,
    &tensor::one_hot::OneHot,
    &tensor::pad::Pad,
    &tensor::range::Range,
    &tensor::reshape::Reshape,
    &tensor::resize::Resize,
    &tensor::shape::Shape,
    &tensor::slice::Slice,
    &tensor::split::Split,
    &tensor::squeeze::Squeeze,
    &tensor::tile::Tile,
    &tensor::topk::TopK,
    &tensor::transpose::Transpose,
    &tensor::unsqueeze::Unsqueeze,
];

/// The facts about an operator; `None` means that it is opaque.
pub fn spec(op: &OpId) -> Option<&'static dyn OpSpec> {
    static INDEX: OnceLock<HashMap<(&str, &str), &'static dyn OpSpec>> = OnceLock::new();
    let index = INDEX.get_or_init(|| {
        let rows = REGISTRY.iter().flat_map(|s| s.keys().iter().map(|k: &OpKey| ((k.domain, k.op_type), *s)));
        rows.collect()
    });
    index.get(&(&*op.domain, &*op.op_type)).copied()
}
