//! Rules that join nodes: what several of them compute, one computes.

mod eliminate_split_concat;
mod fold_affine;
mod fold_batch_norm_ahead;
mod fold_layer_norm_affine;
mod fold_scale;
mod fold_scale_ahead;
mod fuse_gelu;
mod fuse_hard_swish;
mod fuse_layer_norm;
mod fuse_matmul_add;
mod fuse_mish;
mod fuse_not_if;
mod fuse_pad;
mod fuse_projections;
mod fuse_rms_norm;
mod fuse_transpose_gemm;
pub(super) mod linear;
mod matching;
mod mean;
mod merge_batch_norm;
mod merge_scalars;
mod product;

pub use eliminate_split_concat::EliminateSplitConcat;
pub use fold_affine::FoldAffine;
pub use fold_batch_norm_ahead::FoldBatchNormAhead;
pub use fold_layer_norm_affine::FoldLayerNormAffine;
pub use fold_scale::FoldScale;
pub use fold_scale_ahead::FoldScaleAhead;
pub use fuse_gelu::FuseGelu;
pub use fuse_hard_swish::FuseHardSwish;
pub use fuse_layer_norm::FuseLayerNorm;
pub use fuse_matmul_add::FuseMatMulAdd;
pub use fuse_mish::FuseMish;
pub use fuse_not_if::FuseNotIf;
pub use fuse_pad::FusePad;
pub use fuse_projections::FuseProjections;
pub use fuse_rms_norm::FuseRmsNorm;
pub use fuse_transpose_gemm::FuseTransposeGemm;
pub use merge_batch_norm::MergeBatchNorm;
pub use merge_scalars::MergeScalars;

use crate::passes::{GraphRewrite, Rewrite};

/// The rules of this folder, in the order in which they are tried at a node. They belong behind `fold_batch_norm`.
///
/// Formulas come first, because what follows would take constants out of them; LayerNormalization before
/// RMSNormalization, whose formula it contains. Then what folds into the layer before, which every runtime computes for
/// free; then what is left of the constants. A product becomes a Gemm last, when its Add was no constant's.
pub fn fuse_rules() -> Vec<Box<dyn Rewrite>> {
    vec![
        Box::new(FuseGelu),
        Box::new(FuseHardSwish),
        Box::new(FuseMish),
        Box::new(FuseLayerNorm),
        Box::new(FuseRmsNorm),
        Box::new(FoldLayerNormAffine),
        Box::new(FoldAffine),
        Box::new(MergeBatchNorm),
        Box::new(FoldScale),
        Box::new(FoldBatchNormAhead),
        Box::new(FoldScaleAhead),
        Box::new(MergeScalars),
        Box::new(FusePad),
        Box::new(EliminateSplitConcat),
        Box::new(FuseNotIf),
        Box::new(FuseTransposeGemm),
        Box::new(FuseMatMulAdd),
    ]
}

/// The rules of this folder that compare nodes: tried when the others have had their turn, because a number that
/// belongs to one of several weights (attention's scale) must be in it before they are joined.
pub fn fuse_graph_rules() -> Vec<Box<dyn GraphRewrite>> {
    vec![Box::new(FuseProjections)]
}
