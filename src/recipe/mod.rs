//! Recipes: what a run does, as data, and the code that does it. The command line only spells them.

mod accuracy;
mod dump;
mod execute;
mod inspect;
mod interface;
mod ops;
mod progress;
mod quantize;
mod render;
mod rounding;
mod run;
mod schema;
mod simplify;

pub use execute::{ExecuteReport, RunStep, execute_file};
pub use inspect::{InspectReport, inspect_file};
pub use ops::{OpRow, render_markdown, support_table};
pub use progress::{Progress, Silent};
pub use quantize::Calibration;
pub use run::{RunReport, run_files, validate_files};
pub use schema::{
    CalibrationMethod, Overridable, PassOptions, QuantizeStep, RECIPE_VERSION, Recipe, SimplifyStep, ValidateStep,
};
pub use simplify::{Simplified, rule_table, simplify};
