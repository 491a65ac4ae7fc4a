//! Rules that keep every output, bit for bit or up to rounding.

pub mod eliminate;
mod eliminate_identity;
mod fold_batch_norm;
mod fold_constant_of_shape;
mod lift_constants;
mod lift_initializer_inputs;

pub use eliminate_identity::EliminateIdentity;
pub use fold_batch_norm::FoldBatchNorm;
pub use fold_constant_of_shape::FoldConstantOfShape;
pub use lift_constants::LiftConstants;
pub use lift_initializer_inputs::LiftInitializerInputs;
