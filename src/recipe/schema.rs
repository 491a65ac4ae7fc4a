//! What a recipe can say. A recipe is a TOML file; unknown keys are refused.

use crate::calibrate::Method;
use crate::drift::Gate;
use crate::error::{Error, Result};
use crate::io::{SaveOptions, State};
use crate::ir::DType;
use crate::passes::prune::PruneOptions;
use crate::passes::quantize::{Precision, QuantizeOptions};
use crate::passes::simplify::FOLD_LIMIT;
use crate::passes::sparsify::SparsifyOptions;
use crate::recover::DistillOptions;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The recipe format that this version reads and writes.
pub const RECIPE_VERSION: u32 = 1;

/// Everything that one run does to a model: what every command spells.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Recipe {
    /// Format of the recipe.
    pub version: u32,
    /// Simplification, if any; it comes before quantization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub simplify: Option<SimplifyStep>,
    /// Structured pruning, if any; it comes after simplification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prune: Option<PruneStep>,
    /// Sparsification, if any; it comes after pruning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparsify: Option<SparsifyStep>,
    /// Static quantization, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantize: Option<QuantizeStep>,
    /// Distillation, if any; it comes last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distill: Option<DistillStep>,
    /// Conversion to a half-precision type, if any; it comes after quantization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub convert: Option<ConvertStep>,
    /// What the result is compared on; absent: it is not executed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validate: Option<ValidateStep>,
    /// How passes are run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub passes: PassOptions,
    /// How the result is stored.
    #[serde(default, skip_serializing_if = "is_default")]
    pub save: SaveOptions,
}

/// Simplification, and what is done to the interface before it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SimplifyStep {
    /// Operator set that the result is to be written in, at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_opset: Option<i64>,
    /// Sizes for symbolic dimensions, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set_dims: BTreeMap<String, i64>,
    /// Values that become the graph inputs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extract_inputs: Vec<String>,
    /// Values that become the graph outputs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extract_outputs: Vec<String>,
    /// Only these rules, if any are named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// Not these rules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip: Vec<String>,
    /// Largest tensor, in bytes, by which constant folding may make the model larger.
    pub fold_limit: usize,
    /// What initializers that are also graph inputs are.
    pub overridable: Overridable,
    /// Execute the result against the original on made-up input, and undo the rule that breaks it.
    pub check: bool,
}

impl Default for SimplifyStep {
    fn default() -> Self {
        Self {
            target_opset: None,
            set_dims: BTreeMap::new(),
            extract_inputs: vec![],
            extract_outputs: vec![],
            only: vec![],
            skip: vec![],
            fold_limit: FOLD_LIMIT,
            overridable: Overridable::Auto,
            check: true,
        }
    }
}

/// What initializers that are also graph inputs are: defaults that a caller may override, or constants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overridable {
    /// Constants up to IR version 3, which knows no others, and in IR version 4 where every initializer is listed, as
    /// exporters of that time did; else defaults.
    #[default]
    Auto,
    /// Defaults from IR version 4 on, as the specification says.
    Keep,
    /// Constants.
    Constant,
}

/// Quantization and its calibration.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct QuantizeStep {
    /// How ranges are derived from statistics.
    pub method: CalibrationMethod,
    /// Calibration data; random input where absent.
    pub data: Option<PathBuf>,
    /// A table to use instead of data, or to write where it does not exist.
    pub calibration_table: Option<PathBuf>,
    /// At most this many samples.
    pub samples: Option<usize>,
    /// Samples executed at once.
    pub batch: Option<usize>,
    /// Inputs that take an output of the feed before, by name: `input = "output"`.
    #[serde(skip_serializing_if = "State::is_empty")]
    pub state: State,
    /// A layer that could be quantized and is not becomes an error: see [`crate::passes::quantize::Coverage::skipped`].
    #[serde(skip_serializing_if = "is_default")]
    pub strict: bool,
    /// Look for the cheapest precision of every layer with which the bounds of the validation hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    /// How rounding is learnt, where the options want that; absent: as [`DistillOptions::for_rounding`] says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning: Option<DistillOptions>,
    /// Training of the result, if any; it keeps its integer form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recover: Option<RecoverStep>,
    /// Apply all options that are to make the result more accurate, even those that turn out to do the opposite.
    #[serde(skip_serializing_if = "is_default")]
    pub apply_all: bool,
    /// What is quantized, and how it is spelled.
    pub options: QuantizeOptions,
}

/// A search over precisions.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Search {
    /// Precisions that a layer may get.
    pub precisions: Vec<Precision>,
}

impl Default for Search {
    fn default() -> Self {
        Self { precisions: vec![Precision::Eight, Precision::W8, Precision::F16, Precision::F32] }
    }
}

/// Conversion of floats to half precision.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConvertStep {
    /// The type.
    pub to: HalfType,
    /// Only store weights in it, behind a Cast: everything is computed in f32. Always so for bf16, in which no CPU runtime
    /// computes.
    pub weights_only: bool,
    /// Graph inputs and outputs get the type too.
    pub io: bool,
    /// Nodes that stay in f32: names, globs over names, or operator types.
    pub exclude: Vec<String>,
    /// Data that show which values f16 cannot hold.
    pub data: Option<PathBuf>,
    /// At most this many samples.
    pub samples: Option<usize>,
    /// Samples executed at once.
    pub batch: Option<usize>,
    /// Inputs that take an output of the feed before, by name.
    #[serde(skip_serializing_if = "State::is_empty")]
    pub state: State,
}

/// A half-precision type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HalfType {
    /// IEEE 754 binary16: 11 bits of precision, up to 65504.
    #[default]
    F16,
    /// The upper half of f32: 8 bits of precision, the range of f32.
    Bf16,
}

impl HalfType {
    /// Element type.
    pub fn dtype(self) -> DType {
        match self {
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// Unstructured sparsity, and how it is stored.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SparsifyStep {
    /// Data; random input where absent and needed.
    pub data: Option<PathBuf>,
    /// At most this many samples.
    pub samples: Option<usize>,
    /// Samples executed at once.
    pub batch: Option<usize>,
    /// The array of integer class labels in the data: importance by gradients is then of the loss on them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Write sparse initializers as dense ones.
    pub densify: bool,
    /// Training of the result, if any; zeros stay zeros.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recover: Option<RecoverStep>,
    /// What becomes zero.
    pub options: SparsifyOptions,
}

/// Structured pruning, and the data that scores and repair come from.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PruneStep {
    /// Data; random input where absent and needed.
    pub data: Option<PathBuf>,
    /// At most this many samples.
    pub samples: Option<usize>,
    /// Samples executed at once.
    pub batch: Option<usize>,
    /// The array of integer class labels in the data: importance by gradients is then of the loss on them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Where the kept channels are written.
    pub map: Option<PathBuf>,
    /// Training of the result, if any; after repair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recover: Option<RecoverStep>,
    /// What goes.
    pub options: PruneOptions,
}

/// The method, with this project's default.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CalibrationMethod(pub Method);

impl Default for CalibrationMethod {
    fn default() -> Self {
        Self(Method::Mse)
    }
}

/// Training on the outputs of a teacher.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DistillStep {
    /// The teacher's file.
    pub teacher: PathBuf,
    /// Which elements of the teacher's values the student kept, as pruning writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<PathBuf>,
    /// Training data.
    pub data: PathBuf,
    /// The array of integer class labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// At most this many samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<usize>,
    /// How.
    #[serde(default)]
    pub options: DistillOptions,
}

/// Training of what a step made, with the model as it came to the step as the teacher.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RecoverStep {
    /// In which way.
    pub method: RecoverMethod,
    /// Training data; those of the step where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// At most this many samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<usize>,
    /// The array of integer class labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// How.
    #[serde(default = "DistillOptions::for_recovery")]
    pub options: DistillOptions,
}

/// A way to recover.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecoverMethod {
    /// Distillation.
    Distill,
}

impl RecoverStep {
    fn check(&self, data: Option<&PathBuf>) -> Result<()> {
        positive(&[("samples", self.samples)])?;
        if self.data.as_ref().or(data).is_none() {
            return Err(Error::usage("recovery trains on data: give --data"));
        }
        check_distillation(&self.options, self.label.as_ref())
    }
}

fn check_distillation(options: &DistillOptions, label: Option<&String>) -> Result<()> {
    options.check()?;
    if options.label_weight > 0.0 && label.is_none() {
        return Err(Error::usage("a label weight needs labels: give --label"));
    }
    Ok(())
}

/// Comparison of the result with the original.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ValidateStep {
    /// Data; the calibration data, else random input, where absent.
    pub data: Option<PathBuf>,
    /// The array of integer class labels.
    pub label: Option<String>,
    /// At most this many samples.
    pub samples: Option<usize>,
    /// Samples executed at once.
    pub batch: Option<usize>,
    /// Inputs that take an output of the feed before, by name; those of the quantization step where there are none.
    #[serde(skip_serializing_if = "State::is_empty")]
    pub state: State,
    /// Bounds that the result must keep.
    pub gate: Gate,
}

/// How passes are run.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PassOptions {
    /// Stop after this many patches.
    pub fuel: Option<usize>,
    /// Print the model after the pass of this name.
    pub dump_after: Option<String>,
    /// Execute the model before and after each exact or rounding pass; undo a pass that changes more than it declares.
    pub check_each: bool,
}

fn is_default<T: Default + PartialEq>(options: &T) -> bool {
    *options == T::default()
}

impl Default for Recipe {
    fn default() -> Self {
        let (passes, save) = (PassOptions::default(), SaveOptions::default());
        Self {
            version: RECIPE_VERSION,
            simplify: None,
            prune: None,
            sparsify: None,
            quantize: None,
            convert: None,
            distill: None,
            validate: None,
            passes,
            save,
        }
    }
}

impl Recipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// Malformed TOML, an unknown key, another version; with line and column.
    pub fn from_toml(text: &str) -> Result<Self> {
        let recipe: Self = toml::from_str(text).map_err(|e| Error::usage(one_line(&e)))?;
        if recipe.version != RECIPE_VERSION {
            return Err(Error::usage(format!(
                "recipe version {} is not known; this program reads version {RECIPE_VERSION}",
                recipe.version
            )));
        }
        Ok(recipe)
    }

    /// Checks what the types of the fields do not.
    ///
    /// # Errors
    /// A count of zero, bounds that mean nothing, options that exclude each other.
    pub fn check(&self) -> Result<()> {
        if let Some(q) = &self.quantize {
            positive(&[("samples", q.samples), ("batch", q.batch)])?;
            q.options.check()?;
            if q.recover.is_some() && q.options.saturation_safe {
                return Err(Error::usage("saturation-safe weights are not trained: leave --recover out"));
            }
            if let Some(learning) = &q.learning {
                learning.check()?;
                if !q.options.rounding.is_learned() {
                    return Err(Error::usage("rounding is learned with --rounding adaround or block alone"));
                }
            }
            q.recover.as_ref().map_or(Ok(()), |r| r.check(q.data.as_ref()))?;
            if q.search.is_some() && self.validate.is_none() {
                return Err(Error::usage("a search compares with the original: it needs a validation"));
            }
            if q.search.as_ref().is_some_and(|s| s.precisions.is_empty()) {
                return Err(Error::usage("a search needs precisions to choose from"));
            }
        }
        if let Some(c) = &self.convert {
            positive(&[("samples", c.samples), ("batch", c.batch)])?;
            if c.io && (c.weights_only || c.to == HalfType::Bf16) {
                return Err(Error::usage("inputs and outputs stay f32 where only weights are stored in another type"));
            }
        }
        if let Some(p) = &self.prune {
            positive(&[("samples", p.samples), ("batch", p.batch)])?;
            p.options.check()?;
            p.recover.as_ref().map_or(Ok(()), |r| r.check(p.data.as_ref()))?;
        }
        if let Some(s) = &self.sparsify {
            positive(&[("samples", s.samples), ("batch", s.batch)])?;
            s.options.check()?;
            s.recover.as_ref().map_or(Ok(()), |r| r.check(s.data.as_ref()))?;
        }
        if let Some(d) = &self.distill {
            positive(&[("samples", d.samples)])?;
            check_distillation(&d.options, d.label.as_ref())?;
        }
        match &self.validate {
            Some(v) => v.check(),
            None => Ok(()),
        }
    }

    /// Whether it trains.
    pub(super) fn trains(&self) -> bool {
        self.distill.is_some()
            || self.quantize.as_ref().is_some_and(|q| q.recover.is_some() || q.options.rounding.is_learned())
            || self.prune.as_ref().is_some_and(|p| p.recover.is_some())
            || self.sparsify.as_ref().is_some_and(|s| s.recover.is_some())
    }

    /// Writes the recipe.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::internal(format!("recipe: {e}")))
    }
}

impl ValidateStep {
    /// As [`Recipe::check`].
    ///
    /// # Errors
    /// As [`Recipe::check`].
    pub fn check(&self) -> Result<()> {
        positive(&[("samples", self.samples), ("batch", self.batch)])?;
        self.gate.validate()
    }
}

fn positive(counts: &[(&str, Option<usize>)]) -> Result<()> {
    match counts.iter().find(|(_, n)| *n == Some(0)) {
        Some((name, _)) => Err(Error::usage(format!("{name} must be at least 1"))),
        None => Ok(()),
    }
}

fn one_line(e: &toml::de::Error) -> String {
    e.to_string().lines().filter(|l| !l.trim_matches([' ', '|', '^']).is_empty()).collect::<Vec<_>>().join(" ")
}
