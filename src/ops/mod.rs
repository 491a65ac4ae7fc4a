//! Every fact about every operator. One op, one file; a family whose facts are identical is one file with a table.

pub mod axes;
pub mod contrib;
pub mod control;
pub mod gradient;
pub mod image;
mod legacy;
pub mod logic;
pub mod loss;
pub mod math;
pub mod ml;
pub mod nn;
mod normalize;
pub mod quant;
pub mod random;
pub mod reduce;
mod rules;
pub mod sequence;
pub mod signal;
pub mod spec;
pub mod tensor;
pub mod text;
pub mod training;
mod window;

use crate::ir::OpId;
pub use rules::{DATA_LIMIT, merge_dim};

use spec::{OpSpec, Schema};
use std::collections::HashMap;
use std::sync::OnceLock;

/// One line per file.
static REGISTRY: &[&dyn OpSpec] = &[
    &contrib::activation::Activation,
    &contrib::attention::Attention,
    &contrib::dynamic_lstm::DynamicLstm,
    &contrib::dynamic_matmul::DynamicMatMul,
    &contrib::embed_layer_norm::EmbedLayerNormalization,
    &contrib::fused_conv::FusedConv,
    &contrib::fused_gemm::FusedGemm,
    &contrib::fused_matmul::FusedMatMul,
    &contrib::gather_quantized::GatherBlockQuantized,
    &contrib::matmul_nbits::MatMulNBits,
    &contrib::multi_head_attention::MultiHeadAttention,
    &contrib::skip_norm::SkipNorm,
    &control::bodies::Bodies,
    &image::affine_grid::AffineGrid,
    &image::col2im::Col2Im,
    &image::grid_sample::GridSample,
    &image::image_decoder::ImageDecoder,
    &image::non_max_suppression::NonMaxSuppression,
    &image::roi_align::RoiPool,
    &logic::compare::Compare,
    &logic::predicate::Predicate,
    &logic::select::Where,
    &loss::cross_entropy::CrossEntropy,
    &math::arithmetic::Arithmetic,
    &math::bit_cast::BitCast,
    &math::det::Det,
    &math::einsum::Einsum,
    &math::gemm::Gemm,
    &math::matmul::MatMul,
    &math::unary::Unary,
    &ml::estimator::Estimator,
    &nn::attention::Attention,
    &nn::batch_norm::BatchNormalization,
    &nn::clip::Clip,
    &nn::conv::Conv,
    &nn::conv_transpose::ConvTranspose,
    &nn::deform_conv::DeformConv,
    &nn::dropout::Dropout,
    &nn::global_pool::GlobalPool,
    &nn::group_norm::GroupNormalization,
    &nn::layer_norm::LayerNormalization,
    &nn::max_unpool::MaxUnpool,
    &nn::norm::Norm,
    &nn::pool::Pool,
    &nn::recurrent::Recurrent,
    &nn::relu::Relu,
    &nn::rotary_embedding::RotaryEmbedding,
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
    &random::generate::Generate,
    &random::like::Like,
    &random::multinomial::Multinomial,
    &reduce::arg::Arg,
    &reduce::reduction::Reduction,
    &sequence::at::SequenceAt,
    &sequence::concat::ConcatFromSequence,
    &sequence::construct::SequenceConstruct,
    &sequence::edit::SequenceEdit,
    &sequence::empty::SequenceEmpty,
    &sequence::length::SequenceLength,
    &sequence::map::SequenceMap,
    &sequence::optional::Optional,
    &sequence::split::SplitToSequence,
    &signal::dft::Dft,
    &signal::mel_weight_matrix::MelWeightMatrix,
    &signal::stft::Stft,
    &signal::window::SignalWindow,
    &tensor::cast::Cast,
    &tensor::center_crop_pad::CenterCropPad,
    &tensor::compress::Compress,
    &tensor::concat::Concat,
    &tensor::constant::Constant,
    &tensor::constant_of_shape::ConstantOfShape,
    &tensor::depth_space::DepthSpace,
    &tensor::expand::Expand,
    &tensor::eye_like::EyeLike,
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
    &tensor::unique::Unique,
    &tensor::unsqueeze::Unsqueeze,
    &text::regex_full_match::RegexFullMatch,
    &text::string_concat::StringConcat,
    &text::string_normalizer::StringNormalizer,
    &text::string_split::StringSplit,
    &text::tf_idf::TfIdfVectorizer,
    &training::optimizer::Optimizer,
];

/// The facts about an operator; `None` means that it is opaque.
pub fn spec(op: &OpId) -> Option<&'static dyn OpSpec> {
    static INDEX: OnceLock<HashMap<(&str, &str), &'static dyn OpSpec>> = OnceLock::new();
    let index = INDEX.get_or_init(|| table().map(|(s, spec)| ((s.key.domain, s.key.op_type), spec)).collect());
    index.get(&(&*op.domain, &*op.op_type)).copied()
}

/// Every operator that has a file, in the order of the files.
pub fn table() -> impl Iterator<Item = (Schema, &'static dyn OpSpec)> {
    REGISTRY.iter().flat_map(|s| s.schemas().iter().map(|schema| (*schema, *s)))
}
