//! `sardonyx quantize`.

use super::accuracy::AccuracyArgs;
use super::judge::JudgeArgs;
use super::validate::StateArgs;
use super::{Common, Done, apply};
use clap::{Args, ValueEnum};
use sardonyx::calibrate::Method;
use sardonyx::passes::quantize::{Eight, Format, Mode, Precision, QuantizeOptions, Rounding, Runtime, Scope};
use sardonyx::recipe::{CalibrationMethod, PassOptions, QuantizeStep, Recipe, Search};
use std::path::PathBuf;

/// Quantize a model to 8-bit integers, calibrated on your data, and measure what it cost.
///
/// Weights become int8 with one scale per output channel, activations uint8 with ranges from the calibration data. The
/// result is executed in tract against the original before it is written; the table says what moved.
///
/// Examples:
///   sardonyx quantize model.onnx -o model.int8.onnx --data calib.npz
///   sardonyx quantize model.onnx -o model.int8.onnx --data calib.npz --validate-data test.npz --label label --max-drop 0.5
///   sardonyx quantize model.onnx -o model.int8.onnx --data calib.npz --format qdq --exclude 'head.*' --exclude Gemm
///   sardonyx quantize model.onnx -o model.int8.onnx --data calib.npz --runtime ort
///   sardonyx quantize model.onnx -o model.w4a8.onnx --data calib.npz --weight-bits 4 --rounding block
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Quantize {
    /// The exported model.
    input: PathBuf,
    /// Where the quantized model goes; may be the input itself.
    #[arg(short, long, value_name = "FILE", required_unless_present = "print_recipe")]
    output: Option<PathBuf>,
    /// Calibration data: an .npz whose arrays are named after the graph inputs (axis 0 = sample), a folder of .npz files
    /// (one complete feed each), or a folder in the ONNX test layout. Without it: random input, and the report says so.
    #[arg(long, value_name = "FILE|FOLDER")]
    data: Option<PathBuf>,
    /// static = weights and activations, computed in integers; dynamic = the same for linear layers, with ranges of
    /// activations computed anew for each input; weights = weights only, computed in float (smaller files, nearly no loss).
    /// The last two need no data.
    #[arg(long, value_enum, default_value = "static")]
    mode: ModeArg,
    /// How the result is spelled: qlinear = QLinearConv and QLinearMatMul with 8-bit tensors between them; qdq = float
    /// operators between QuantizeLinear and DequantizeLinear, which runtimes fuse.
    #[arg(long, value_enum, default_value = "qlinear")]
    format: FormatArg,
    /// portable = operators of the ONNX standard only; ort = ONNX Runtime's com.microsoft operators too (faster there).
    #[arg(long, value_enum, default_value = "portable")]
    runtime: RuntimeArg,
    /// full = linear layers, what runs between them, and their outputs; inputs = only the inputs and weights of linear
    /// layers (most accurate; needs --format qdq).
    #[arg(long, value_enum, default_value = "full")]
    scope: ScopeArg,
    /// How ranges are derived from the data: minmax, percentile=99.99, entropy or mse.
    #[arg(long, default_value_t = CalibrationMethod::default().0)]
    method: Method,
    /// Type of activations.
    #[arg(long, value_enum, default_value = "u8")]
    activations: EightArg,
    /// Type of weights.
    #[arg(long, value_enum, default_value = "s8")]
    weights: EightArg,
    /// Bits of weights: 8, 4, 3 or 2.
    #[arg(long, value_name = "N", default_value_t = 8)]
    weight_bits: u8,
    /// Elements of a weight that share a scale, along the axis that products are summed over (needs --mode weights).
    /// Default: those of an output channel, or 32 where only weights are quantized to fewer than 8 bits.
    #[arg(long, value_name = "N")]
    block_size: Option<usize>,
    /// How weights are rounded: nearest; gptq = each makes up for the errors of those before it, as the calibration data
    /// weigh them (slower, more accurate; needs --data); block = gptq, then codes, scales and biases are learned by gradients
    /// of the error of block outputs and results (minutes, most accurate with 4 bits and fewer); adaround = gptq, then each
    /// weight learns whether to be rounded up or down. What is learned is kept only where it is better on samples that are
    /// held out.
    #[arg(long, value_enum, default_value = "nearest")]
    rounding: RoundingArg,
    /// One scale for each whole weight instead of one per output channel.
    #[arg(long)]
    per_tensor: bool,
    /// Zero point of activations in the middle of the type.
    #[arg(long)]
    symmetric_activations: bool,
    /// Zero point of weights wherever their range puts it (needs --per-tensor, or --mode weights).
    #[arg(long)]
    asymmetric_weights: bool,
    #[command(flatten)]
    accuracy: AccuracyArgs,
    #[command(flatten)]
    learning: super::learning::LearningArgs,
    #[command(flatten)]
    recover: super::recover::RecoverArgs,
    /// Quantize only nodes that match: a name, a glob over names, or an operator type. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Leave nodes that match in float. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Statistics to use instead of data; written there if the file does not exist yet.
    #[arg(long, value_name = "FILE.json")]
    calibration_table: Option<PathBuf>,
    /// Use at most this many calibration samples.
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Samples executed at once, where the model's batch size is free.
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    #[command(flatten)]
    state: StateArgs,
    /// Fail (status 1) where a linear or recurrent layer with constant weights, or a node that --include names, stays in
    /// float although no --exclude asks for it.
    #[arg(long)]
    strict: bool,
    /// Look for the cheapest precision of every layer with which --max-drift, --min-sqnr, --max-drop and --min-agreement
    /// hold on the validation data; each step is executed.
    #[arg(long, conflicts_with = "no_validate")]
    search: bool,
    /// Precisions that the search may give to a layer: 8 = as the other options say, 4 = the same with weights of 4 bits,
    /// 16 = the same with inputs of 16 bits (needs --format qdq), w8 and f16 = computed in float on weights stored in 8 bits
    /// or in f16, f32.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = precision,
        default_values = ["8", "w8", "f16", "f32"])]
    precisions: Vec<Precision>,
    /// Precision of the nodes that match a pattern, for example 'head.*=f32'. May be repeated.
    #[arg(long, value_name = "PATTERN=PRECISION", value_parser = node_precision)]
    node: Vec<(String, Precision)>,
    #[command(flatten)]
    judge: JudgeArgs,
    #[command(flatten)]
    save: super::save::SaveArgs,
    #[command(flatten)]
    debug: DebugArgs,
    /// Print the recipe that this command spells, and stop.
    #[arg(long)]
    print_recipe: bool,
}

/// For whoever looks for the pass that breaks something.
#[derive(Args)]
pub struct DebugArgs {
    /// Stop after this many patches.
    #[arg(long, value_name = "N", hide_short_help = true)]
    fuel: Option<usize>,
    /// Print the model, in ONNX's text syntax, on standard error after this pass.
    #[arg(long, value_name = "PASS", hide_short_help = true)]
    dump_after: Option<String>,
    /// Execute the model before and after each pass and undo one that changes more than it declares.
    #[arg(long, hide_short_help = true)]
    check_each: bool,
}

impl DebugArgs {
    /// The options as the recipe has them.
    pub fn options(&self) -> PassOptions {
        PassOptions { fuel: self.fuel, dump_after: self.dump_after.clone(), check_each: self.check_each }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum ModeArg {
    Static,
    Weights,
    Dynamic,
}

#[derive(Clone, Copy, ValueEnum)]
enum RoundingArg {
    Nearest,
    Gptq,
    Adaround,
    Block,
}

#[derive(Clone, Copy, ValueEnum)]
enum FormatArg {
    Qlinear,
    Qdq,
}

#[derive(Clone, Copy, ValueEnum)]
enum RuntimeArg {
    Portable,
    Ort,
}

#[derive(Clone, Copy, ValueEnum)]
enum ScopeArg {
    Full,
    Inputs,
}

#[derive(Clone, Copy, ValueEnum)]
enum EightArg {
    U8,
    S8,
    U16,
    S16,
}

impl From<EightArg> for Eight {
    fn from(e: EightArg) -> Self {
        match e {
            EightArg::U8 => Eight::U8,
            EightArg::S8 => Eight::S8,
            EightArg::U16 => Eight::U16,
            EightArg::S16 => Eight::S16,
        }
    }
}

fn precision(text: &str) -> Result<Precision, String> {
    Precision::from_name(text).ok_or_else(|| format!("expected one of {}", Precision::NAMES.join(", ")))
}

fn node_precision(text: &str) -> Result<(String, Precision), String> {
    let (pattern, name) = text.rsplit_once('=').ok_or("expected PATTERN=PRECISION")?;
    Ok((pattern.to_string(), precision(name)?))
}

impl Quantize {
    pub fn run(&self, common: &Common) -> anyhow::Result<Done> {
        let recipe = self.recipe();
        if self.print_recipe {
            super::output::print(&recipe.to_toml()?)?;
            return Ok(Done::Ok);
        }
        if recipe.quantize.as_ref().is_some_and(|q| q.recover.is_some() || q.options.rounding.is_learned()) {
            super::progress::stop_on_interrupt();
            sardonyx::recover::keep_freed();
        }
        let output = self.output.as_deref().unwrap_or(&self.input);
        apply::run_training(&recipe, &self.input, output, self.recover.html.as_deref(), common)
    }

    fn recipe(&self) -> Recipe {
        let options = QuantizeOptions {
            mode: match self.mode {
                ModeArg::Static => Mode::Static,
                ModeArg::Weights => Mode::Weights,
                ModeArg::Dynamic => Mode::Dynamic,
            },
            weight_bits: self.weight_bits,
            block_size: self.block_size,
            rounding: match self.rounding {
                RoundingArg::Nearest => Rounding::Nearest,
                RoundingArg::Gptq => Rounding::Gptq,
                RoundingArg::Adaround => Rounding::Adaround,
                RoundingArg::Block => Rounding::Block,
            },
            format: match self.format {
                FormatArg::Qlinear => Format::Qlinear,
                FormatArg::Qdq => Format::Qdq,
            },
            runtime: match self.runtime {
                RuntimeArg::Portable => Runtime::Portable,
                RuntimeArg::Ort => Runtime::Ort,
            },
            scope: match self.scope {
                ScopeArg::Full => Scope::Full,
                ScopeArg::Inputs => Scope::Inputs,
            },
            activations: self.activations.into(),
            weights: self.weights.into(),
            per_channel: !self.per_tensor,
            symmetric_activations: self.symmetric_activations,
            symmetric_weights: !self.asymmetric_weights,
            bias_correction: !self.accuracy.no_bias_correction,
            empirical_bias_correction: self.accuracy.empirical_bias_correction,
            equalize: self.accuracy.equalize,
            migrate: self.accuracy.migrate,
            clip_search: self.accuracy.clip_search,
            saturation_safe: self.accuracy.saturation_safe,
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            nodes: self.node.iter().cloned().collect(),
        };
        let search = self.search.then(|| Search { precisions: self.precisions.clone() });
        let quantize = QuantizeStep {
            method: CalibrationMethod(self.method),
            data: self.data.clone(),
            calibration_table: self.calibration_table.clone(),
            samples: self.samples,
            batch: self.batch,
            state: self.state.state(),
            strict: self.strict,
            search,
            learning: self.learning.options(),
            recover: self.recover.step(),
            apply_all: self.accuracy.apply_all,
            options,
        };
        let validate = self.judge.step(self.batch, Some(&self.state));
        let (passes, save) = (self.debug.options(), self.save.options());
        Recipe { quantize: Some(quantize), validate, passes, save, ..Recipe::default() }
    }
}
