//! Passes: rules, what they may do, and the machinery that runs them.

pub mod manager;
mod pass;
mod patch;
pub mod quantize;
pub mod simplify;

pub use pass::{Effect, Note, Outcome, Pass, PassContext, Rewrite, RewritePass, RuleContext};
pub use patch::{Patch, Ref};
