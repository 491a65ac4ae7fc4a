//! Recipes: what a run does, as data, and the code that does it. The command line only spells them.

mod accuracy;
mod convert;
mod curve;
mod distill;
mod dump;
mod execute;
mod explain;
mod gradients;
mod groups;
mod in_order;
mod inspect;
mod interface;
mod latency;
mod layers;
mod learn;
mod ops;
mod progress;
mod prune;
mod quantize;
mod render;
mod repair;
mod rounding;
mod run;
mod schema;
mod search;
mod sensitivity;
mod simplify;
mod sparse_fit;
mod sparsify;
mod trials;

pub use convert::Conversion;
pub use distill::Recovered;
pub use execute::{ExecuteReport, RunStep, execute_file};
pub use explain::{ExplainReport, RoundingReport, explain_files};
pub use groups::{BodyRow, GroupRow, GroupsReport, Member, groups_file};
pub use inspect::{InspectReport, inspect_file};
pub use layers::PROBE_SAMPLES;
pub use ops::{OpRow, render_markdown, support_table};
pub use progress::{Progress, Silent};
pub use prune::{PruneReport, PrunedLayer, prepare as prepare_pruning, prune};
pub use quantize::{Calibration, Quantized, quantize};
pub use run::{RunReport, run_files, validate_files};
pub use schema::{
    CalibrationMethod, ConvertStep, DistillStep, HalfType, Overridable, PassOptions, PruneStep, QuantizeStep,
    RECIPE_VERSION, Recipe, RecoverMethod, RecoverStep, Search, SimplifyStep, SparsifyStep, ValidateStep,
};
pub use search::Searched;
pub use sensitivity::{SensitivityReport, SensitivityRow, sensitivity_file};
pub use simplify::{Simplified, rule_table, simplify};
pub use sparsify::{SparseWeight, SparsifyReport, sparsify};
pub use trials::{Trials, TriedOption};
