//! Recovering accuracy: gradients of an ONNX model, what is important in it, and distillation.
//!
//! ```text
//! Network (a model and what is trained in it) -> plan per set of input shapes -> Tape (one forward pass) -> gradients
//! ```
//! Each operator's forward and backward function is in its own file under [`crate::ops`].

mod activations;
mod augment;
mod checkpoint;
mod codes;
mod distill;
mod distill_options;
mod features;
mod importance;
pub mod loss;
mod memory;
mod network;
mod optimizer;
mod parameters;
mod plan;
mod prepare;
mod random;
mod samples;
mod tape;
mod target;
mod teacher;
mod training;
mod training_form;

pub use activations::channel_statistics;
pub use codes::Latent;
pub use distill::{Distillation, Point, Status, Teacher, distill};
pub use distill_options::DistillOptions;
pub use features::{Feature, KeptElements, features};
pub use importance::{Importance, ImportanceOptions, Measure, importance};
pub use memory::keep_freed;
pub use network::{Network, NetworkOptions};
pub use optimizer::Method;
pub use parameters::{Parameter, Parameters, Role, parameters_of};
pub use plan::Frozen;
pub use samples::Samples;
pub use tape::{Gradients, Seed, Tape};
pub use target::LossKind;
