//! Rules that join nodes: what several of them compute, one computes.

mod fold_affine;
mod fuse_matmul_add;
mod fuse_pad;
mod fuse_transpose_gemm;
pub(super) mod linear;
mod matching;
mod merge_scalars;
mod product;

pub use fold_affine::FoldAffine;
pub use fuse_matmul_add::FuseMatMulAdd;
pub use fuse_pad::FusePad;
pub use fuse_transpose_gemm::FuseTransposeGemm;
pub use merge_scalars::MergeScalars;

use crate::passes::Rewrite;

/// The rules of this folder, in the order in which they are tried at a node.
pub fn fuse_rules() -> Vec<Box<dyn Rewrite>> {
    vec![
        Box::new(MergeScalars),
        Box::new(FoldAffine),
        Box::new(FusePad),
        Box::new(FuseTransposeGemm),
        Box::new(FuseMatMulAdd),
    ]
}
