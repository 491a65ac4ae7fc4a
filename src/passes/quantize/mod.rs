//! Quantization: one plan from operator facts and scale groups, in two spellings; and weights that are stored in fewer
//! bits where a layer computes in float.

mod clip;
mod coverage;
mod dynamic;
mod emit;
mod equalize;
mod groups;
mod layers;
mod migrate;
mod options;
mod pass;
mod plan;
mod qdq;
mod qlinear;
pub mod rounding;
mod saturation;
mod selection;
mod simulate;
mod spell_out;
mod split_gemm_bias;
mod stored;
mod structure;
mod trial;
pub mod weight_only;
mod weights;

pub use clip::{ClipSearch, Clipped};
pub use coverage::{Coverage, FloatNode, Share};
pub use dynamic::WriteDynamic;
pub use equalize::{EqualizeChannels, EqualizeOptions};
pub use groups::ScaleGroups;
pub use layers::LayerPlan;
pub use migrate::{Migrate, MigrateRanges};
pub use options::{DEFAULT_BLOCK, Eight, Format, Mode, Precision, QuantizeOptions, Rounding, Runtime, Scope};
pub use pass::WritePlan;
pub use plan::{Plan, Quantization, Reach, RoundedLayer};
pub use selection::Selection;
pub use simulate::{Rounded, Simulate, rounded_name, zero_point};
pub use spell_out::SpellOut;
pub use split_gemm_bias::SplitGemmBias;
pub use stored::{DynamicLstm, StoreWeights, has_computed_weights};
pub use structure::{Decision, Kind, Structure};
pub use weights::{QuantizedWeight, quantize_weight};
