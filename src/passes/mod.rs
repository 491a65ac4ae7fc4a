//! Passes: rules, what they may do, and the machinery that runs them.

mod budget;
pub mod convert;
mod evaluator;
mod inline_functions;
mod linear;
pub mod manager;
mod pass;
mod patch;
pub mod prune;
pub mod quantize;
mod rewrite;
pub mod simplify;
pub mod sparsify;
mod untie_identity;

pub use evaluator::Evaluator;
pub use inline_functions::inline_functions;
pub use linear::{Linear, linear_layers};
pub use pass::{Effect, Note, Outcome, Pass, PassContext};
pub use patch::{Patch, Ref};
pub use quantize::Selection;
pub use rewrite::{GraphRewrite, Rewrite, RewritePass, RuleContext};
pub use untie_identity::UntieIdentity;
