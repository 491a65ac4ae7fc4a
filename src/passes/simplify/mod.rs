//! Rules that keep every output, bit for bit or up to rounding.

pub mod eliminate;
mod eliminate_common_subexpression;
mod eliminate_duplicate_initializer;
mod eliminate_identity;
mod fold_batch_norm;
mod fold_constant_of_shape;
mod fold_constants;
mod fold_shapes;
mod fuse;
mod fuse_shape_gather;
mod inline_if;
mod lift_constants;
mod lift_initializer_inputs;
mod lift_loop_invariant;

pub use eliminate_common_subexpression::EliminateCommonSubexpression;
pub use eliminate_duplicate_initializer::EliminateDuplicateInitializer;
pub use eliminate_identity::EliminateIdentity;
pub use fold_batch_norm::FoldBatchNorm;
pub use fold_constant_of_shape::FoldConstantOfShape;
pub use fold_constants::FoldConstants;
pub use fold_shapes::FoldShapes;
pub use fuse::*;
pub use fuse_shape_gather::FuseShapeGather;
pub use inline_if::InlineIf;
pub use lift_constants::LiftConstants;
pub use lift_initializer_inputs::LiftInitializerInputs;
pub use lift_loop_invariant::LiftLoopInvariant;

use super::{Evaluator, GraphRewrite, Rewrite, RewritePass};

/// Default of `--fold-limit`.
pub const FOLD_LIMIT: usize = 16 << 20;

/// The simplification: every rule, to a fixed point. Constants come first, because most rules want to see them; what
/// makes nodes disappear comes before what joins them, because joining looks at neighbours.
pub fn simplify(evaluator: &dyn Evaluator, fold_limit: usize) -> RewritePass<'_> {
    let mut rules: Vec<Box<dyn Rewrite>> = vec![
        Box::new(LiftConstants),
        Box::new(FoldShapes),
        Box::new(FoldConstantOfShape::new(fold_limit)),
        Box::new(FoldConstants { limit: fold_limit }),
        Box::new(InlineIf),
        Box::new(LiftLoopInvariant),
        Box::new(EliminateIdentity),
    ];
    rules.extend(eliminate::eliminate_rules());
    rules.push(Box::new(FoldBatchNorm));
    rules.push(Box::new(FuseShapeGather));
    rules.extend(fuse_rules());
    let mut graph_rules: Vec<Box<dyn GraphRewrite>> = vec![
        Box::new(eliminate::EliminateEqualShape),
        Box::new(EliminateCommonSubexpression),
        Box::new(EliminateDuplicateInitializer),
    ];
    graph_rules.extend(fuse_graph_rules());
    RewritePass::new("simplify", rules).with_graph_rules(graph_rules).with_evaluator(evaluator)
}
