//! Rules that take away what does nothing: every one keeps the outputs bit for bit.

mod eliminate_cast;
mod eliminate_clip;
mod eliminate_concat_chain;
mod eliminate_equal_shape;
mod eliminate_expand;
mod eliminate_idempotent;
mod eliminate_involution;
mod eliminate_neutral_operand;
mod eliminate_pad;
mod eliminate_pad_chain;
mod eliminate_reduce;
mod eliminate_reshape;
mod eliminate_reshape_chain;
mod eliminate_resize;
mod eliminate_single_input;
mod eliminate_slice;
mod eliminate_slice_chain;
mod eliminate_split;
mod eliminate_transpose;
mod eliminate_unused_output;
mod fold_reshape_target;
mod reshaping;
mod support;

use crate::passes::Rewrite;
pub use eliminate_cast::EliminateCast;
pub use eliminate_clip::EliminateClip;
pub use eliminate_concat_chain::EliminateConcatChain;
pub use eliminate_equal_shape::EliminateEqualShape;
pub use eliminate_expand::EliminateExpand;
pub use eliminate_idempotent::EliminateIdempotent;
pub use eliminate_involution::EliminateInvolution;
pub use eliminate_neutral_operand::EliminateNeutralOperand;
pub use eliminate_pad::EliminatePad;
pub use eliminate_pad_chain::EliminatePadChain;
pub use eliminate_reduce::EliminateReduce;
pub use eliminate_reshape::EliminateReshape;
pub use eliminate_reshape_chain::EliminateReshapeChain;
pub use eliminate_resize::EliminateResize;
pub use eliminate_single_input::EliminateSingleInput;
pub use eliminate_slice::EliminateSlice;
pub use eliminate_slice_chain::EliminateSliceChain;
pub use eliminate_split::EliminateSplit;
pub use eliminate_transpose::EliminateTranspose;
pub use eliminate_unused_output::EliminateUnusedOutput;
pub use fold_reshape_target::FoldReshapeTarget;

/// The rules, in the order in which they are tried at a node.
///
/// First those that take a node away, as they leave nothing for the others to do; then those that shorten a chain; last
/// those that write a node anew (constants for shape arithmetic), which the next sweep may take away.
pub fn eliminate_rules() -> Vec<Box<dyn Rewrite>> {
    vec![
        Box::new(EliminateCast),
        Box::new(EliminateSingleInput),
        Box::new(EliminateSplit),
        Box::new(EliminateExpand),
        Box::new(EliminatePad),
        Box::new(EliminateSlice),
        Box::new(EliminateReduce),
        Box::new(EliminateResize),
        Box::new(EliminateTranspose),
        Box::new(EliminateReshape),
        Box::new(EliminateNeutralOperand),
        Box::new(EliminateInvolution),
        Box::new(EliminateIdempotent),
        Box::new(EliminateClip),
        Box::new(EliminateConcatChain),
        Box::new(EliminateSliceChain),
        Box::new(EliminatePadChain),
        Box::new(EliminateReshapeChain),
        Box::new(EliminateUnusedOutput),
        Box::new(FoldReshapeTarget),
    ]
}
