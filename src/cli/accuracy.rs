//! The options of quantization that make it more accurate.

use clap::Args;
use sardonyx::passes::quantize::Migrate;

/// Passes that make the result more accurate. Each can be used alone.
#[derive(Args)]
pub struct AccuracyArgs {
    /// Leave biases as they are, instead of letting them take up what rounding the weights shifts mean outputs by.
    #[arg(long)]
    pub no_bias_correction: bool,
    /// Let biases take up what is left of the shift of mean outputs, as measured between the quantized model and the
    /// original on the calibration data.
    #[arg(long)]
    pub empirical_bias_correction: bool,
    /// Spread the ranges of the channels between two linear layers evenly, through Relu and the like (cross-layer
    /// equalization): for depthwise convolutions and --per-tensor. Needs no data.
    #[arg(long)]
    pub equalize: bool,
    /// How far outliers among the channels of a layer's input move into its weight (SmoothQuant): none, a strength between
    /// 0 and 1, or auto = the strength with the least error of each layer's output on the calibration data.
    #[arg(long, value_name = "none|auto|STRENGTH", default_value_t = Migrate::None)]
    pub migrate: Migrate,
    /// Choose the range of each layer's input by the error of the layer's output, on the calibration data.
    #[arg(long)]
    pub clip_search: bool,
    /// For CPUs without VNNI, whose kernels add pairs of 8-bit products in 16 bits: gives 7 bits to those channels of
    /// weights where a pair could overflow.
    #[arg(long)]
    pub saturation_safe: bool,
    /// Apply all of --equalize, --migrate, --clip-search, --empirical-bias-correction and --rounding that are given. Without
    /// it, where there are several and data, each is tried in turn and kept only where it brings the outputs of the model
    /// nearer to the original's, on up to 64 of the calibration samples.
    #[arg(long)]
    pub apply_all: bool,
}
