//! Execution in tract: lowering to what tract runs faithfully, and running it.

mod collect;
mod custom;
mod evaluator;
mod kernels;
mod lower;
mod magnitudes;
mod program;
mod ranked;
mod regress;
mod runner;
mod segment;
mod stream;
mod tensor;

pub use collect::{Collected, Wanted, collect, collect_grams};
pub use evaluator::RuntimeEvaluator;
pub use lower::{runs, unsupported};
pub use magnitudes::{channel_moments, channel_rms};
pub use regress::{Fit, collect_regressions};
pub use runner::{RunOutput, Runner, RunnerOptions};
pub use stream::stream;
