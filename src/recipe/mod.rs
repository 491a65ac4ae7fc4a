//! Recipes: what a run does, as data, and the code that does it. The command line only spells them.

mod dump;
mod inspect;
mod progress;
mod quantize;
mod render;
mod run;
mod schema;

pub use inspect::{InspectReport, inspect_file};
pub use progress::{Progress, Silent};
pub use quantize::Calibration;
pub use run::{RunReport, run_files, validate_files};
pub use schema::{CalibrationMethod, PassOptions, QuantizeStep, RECIPE_VERSION, Recipe, ValidateStep};
