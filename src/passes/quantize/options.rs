//! What the caller may choose.

use super::migrate::Migrate;
use crate::error::{Error, Result};
use crate::ir::DType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Settings of quantization. Every field has the default that the command line has.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct QuantizeOptions {
    /// What is quantized.
    pub mode: Mode,
    /// How the plan is spelled.
    pub format: Format,
    /// Which operators may be written.
    pub runtime: Runtime,
    /// How much of the graph is quantized.
    pub scope: Scope,
    /// Type of activations.
    pub activations: Eight,
    /// Type of weights.
    pub weights: Eight,
    /// Bits of a weight: 8, 4, 3 or 2. Fewer than 8 are stored in 4.
    pub weight_bits: u8,
    /// Elements of a weight, along the axis that products are summed over, that share a scale. Absent: those of an output
    /// channel, or [`DEFAULT_BLOCK`] where only weights are quantized, to fewer than 8 bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_size: Option<usize>,
    /// How weights are rounded.
    pub rounding: Rounding,
    /// One scale per output channel of a weight instead of one for the whole tensor.
    pub per_channel: bool,
    /// Zero point of activations in the middle of the type.
    pub symmetric_activations: bool,
    /// Zero point of weights in the middle of the type.
    pub symmetric_weights: bool,
    /// Let biases take up what rounding the weights shifts mean outputs by.
    pub bias_correction: bool,
    /// Let biases take up what is left of the shift of mean outputs, as measured between the quantized model and the
    /// original.
    pub empirical_bias_correction: bool,
    /// Spread the ranges of neighbouring layers' channels evenly before anything else.
    pub equalize: bool,
    /// How far the range of a layer's input channels moves into its weight.
    pub migrate: Migrate,
    /// Choose the range of a layer's input by the error of the layer's output.
    pub clip_search: bool,
    /// Keep the sum of two products of 8 bits within 16, as kernels without VNNI add them: 7 bits for the channels of
    /// weights that could exceed it.
    pub saturation_safe: bool,
    /// Only nodes that match one of these (name, glob over names, or operator type); empty = all.
    pub include: Vec<String>,
    /// No node that matches one of these.
    pub exclude: Vec<String>,
    /// Precision of the nodes that match a pattern (name, glob over names, or operator type), where it is not that of the
    /// other options. Of several patterns that match, a name decides before a glob, a glob before an operator, and the
    /// longer glob before the shorter.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, Precision>,
}

/// Precision of one layer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Precision {
    /// It stays as it is.
    #[serde(rename = "f32")]
    F32,
    /// It computes in float; its weights are stored in half precision.
    #[serde(rename = "f16")]
    F16,
    /// It computes in float; its weights are stored in 8 bits.
    #[serde(rename = "w8")]
    W8,
    /// As `Eight`, with 16 bits for the activations that it takes.
    #[serde(rename = "16")]
    Sixteen,
    /// Weights and activations have the types of the options.
    #[serde(rename = "8")]
    Eight,
    /// As `Eight`, with weights of 4 bits.
    #[serde(rename = "4")]
    Four,
}

impl Precision {
    /// All, as recipes spell them.
    pub const NAMES: [&str; 6] = ["f32", "f16", "w8", "16", "8", "4"];

    /// The precision that recipes spell so.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::F32, Self::F16, Self::W8, Self::Sixteen, Self::Eight, Self::Four].into_iter().find(|p| p.name() == name)
    }

    /// As recipes spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::W8 => "w8",
            Self::Sixteen => "16",
            Self::Eight => "8",
            Self::Four => "4",
        }
    }
}

impl Default for QuantizeOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Static,
            format: Format::Qlinear,
            runtime: Runtime::Portable,
            scope: Scope::Full,
            activations: Eight::U8,
            weights: Eight::S8,
            weight_bits: 8,
            block_size: None,
            rounding: Rounding::Nearest,
            per_channel: true,
            symmetric_activations: false,
            symmetric_weights: true,
            bias_correction: true,
            empirical_bias_correction: false,
            equalize: false,
            migrate: Migrate::None,
            clip_search: false,
            saturation_safe: false,
            include: vec![],
            exclude: vec![],
            nodes: BTreeMap::new(),
        }
    }
}

/// Block size of weights of fewer than 8 bits where only weights are quantized: the field's usual one.
pub const DEFAULT_BLOCK: usize = 32;

/// What is quantized.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Weights and activations, with ranges from calibration.
    Static,
    /// Weights only: they are stored in few bits, and products are computed in float.
    Weights,
    /// Weights, and the inputs of linear layers with ranges that are computed anew for each input.
    Dynamic,
}

/// How weights are rounded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rounding {
    /// Each to the nearest level.
    Nearest,
    /// One after the other, each making up for the errors of those before it, as the calibration data weigh them
    /// (Frantar et al., GPTQ, 2022).
    Gptq,
    /// As `Gptq`, then each up or down from its weight by gradients of the error of block outputs and results (Nagel et al.,
    /// AdaRound, 2020).
    Adaround,
    /// As `Gptq`, then codes, scales and biases by gradients of the same error (after Li et al., BRECQ, 2021).
    Block,
}

impl Rounding {
    /// Whether second-order statistics of the calibration data decide, at first.
    pub fn has_feedback(self) -> bool {
        self != Rounding::Nearest
    }

    /// Whether gradients decide in the end.
    pub fn is_learned(self) -> bool {
        matches!(self, Rounding::Adaround | Rounding::Block)
    }
}

/// Spelling of a quantized graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// QLinearConv, QLinearMatMul and 8-bit tensors between them.
    Qlinear,
    /// Float operators between QuantizeLinear and DequantizeLinear, which runtimes fuse.
    Qdq,
}

/// Which operators may be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Operators of the ONNX standard only.
    Portable,
    /// ONNX Runtime's `com.microsoft` operators too.
    Ort,
}

/// How much is quantized.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Linear layers, what runs between them, and their outputs.
    Full,
    /// Inputs and weights of linear layers only; their outputs stay float.
    Inputs,
}

/// An integer type that values are quantized to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Eight {
    /// 0 to 255.
    U8,
    /// -128 to 127.
    S8,
    /// 0 to 65,535.
    U16,
    /// -32,768 to 32,767.
    S16,
}

impl Eight {
    /// Element type.
    pub fn dtype(self) -> DType {
        match self {
            Eight::U8 => DType::U8,
            Eight::S8 => DType::I8,
            Eight::U16 => DType::U16,
            Eight::S16 => DType::I16,
        }
    }

    /// Number of bits.
    pub fn bits(self) -> u32 {
        match self {
            Eight::U8 | Eight::S8 => 8,
            Eight::U16 | Eight::S16 => 16,
        }
    }

    /// The type of 16 bits with the same sign.
    pub fn wide(self) -> Self {
        if self.is_signed() { Eight::S16 } else { Eight::U16 }
    }

    /// Whether there are negative values.
    pub fn is_signed(self) -> bool {
        matches!(self, Eight::S8 | Eight::S16)
    }

    /// Smallest and largest value.
    pub fn bounds(self) -> (i32, i32) {
        match self {
            Eight::U8 => (0, 255),
            Eight::S8 => (-128, 127),
            Eight::U16 => (0, 65_535),
            Eight::S16 => (-32_768, 32_767),
        }
    }
}

impl QuantizeOptions {
    /// Checks combinations that no runtime can execute.
    ///
    /// # Errors
    /// What to change.
    pub fn check(&self) -> Result<()> {
        self.check_weights()?;
        self.check_activations()?;
        self.check_nodes()?;
        if self.mode == Mode::Static && self.scope == Scope::Inputs && self.format == Format::Qlinear {
            return Err(Error::usage(
                "scope \"inputs\" leaves the outputs of layers in float, which QLinear operators cannot: use --format qdq",
            ));
        }
        if self.activations == Eight::S8 && self.weights == Eight::U8 {
            return Err(Error::usage(
                "no runtime multiplies signed activations with unsigned weights: use s8 weights or u8 activations",
            ));
        }
        if self.mode != Mode::Weights && self.per_channel && !self.symmetric_weights {
            return Err(Error::usage(
                "per-channel weights must be symmetric (runtimes want one zero point for all channels): use per-tensor weights or symmetric ones",
            ));
        }
        Ok(())
    }

    /// Whether some nodes have this precision of their own.
    pub fn gives(&self, precision: Precision) -> bool {
        self.nodes.values().any(|p| *p == precision)
    }

    fn check_nodes(&self) -> Result<()> {
        let (sixteen, four) = (self.gives(Precision::Sixteen), self.gives(Precision::Four));
        if (sixteen || four) && self.mode != Mode::Static {
            return Err(Error::usage("precisions 16 and 4 of single nodes need --mode static"));
        }
        if sixteen && self.format == Format::Qlinear {
            return Err(Error::usage("QLinear operators take 8 bits: precision 16 needs --format qdq"));
        }
        if four && !self.per_channel {
            return Err(Error::usage("weights of 4 bits have a scale per channel: leave out --per-tensor"));
        }
        if four && self.saturation_safe {
            return Err(Error::usage("saturation-safe weights have 7 or 8 bits: leave out precision 4"));
        }
        Ok(())
    }

    fn check_activations(&self) -> Result<()> {
        if self.mode == Mode::Dynamic && self.activations != Eight::U8 {
            return Err(Error::usage("DynamicQuantizeLinear makes u8: leave --activations at that"));
        }
        if self.activations.bits() == 16 && self.format == Format::Qlinear {
            return Err(Error::usage("QLinear operators take 8 bits: 16-bit activations need --format qdq"));
        }
        let ahead = self.rounding.has_feedback() || self.weight_bits < 8;
        if self.saturation_safe && self.mode != Mode::Weights && ahead {
            return Err(Error::usage("saturation-safe weights have 7 or 8 bits and are rounded to the nearest"));
        }
        if self.mode == Mode::Dynamic && ahead {
            return Err(Error::usage("--mode dynamic rounds weights to the nearest of 8 bits"));
        }
        if matches!(self.weights, Eight::U16 | Eight::S16) {
            return Err(Error::usage("weights have 8 bits or fewer: use s8 or u8"));
        }
        Ok(())
    }

    fn check_weights(&self) -> Result<()> {
        if !matches!(self.weight_bits, 8 | 4 | 3 | 2) {
            return Err(Error::usage(format!("weights of {} bits: use 8, 4, 3 or 2", self.weight_bits)));
        }
        let plain = self.weight_bits == 8 && self.rounding == Rounding::Nearest;
        if self.mode == Mode::Dynamic && !plain {
            return Err(Error::usage(
                "dynamic quantization rounds weights to the nearest of 8 bits: use --mode static or weights for anything else",
            ));
        }
        let fine = self.weight_bits < 8 || self.rounding.has_feedback() || self.mode == Mode::Weights;
        if fine && !self.per_channel {
            return Err(Error::usage(
                "one scale for a whole weight is for 8 bits, rounded to nearest, beside 8-bit activations: leave out --per-tensor",
            ));
        }
        let Some(block) = self.block_size else { return Ok(()) };
        if self.mode != Mode::Weights {
            return Err(Error::usage("no integer kernel takes weights with a scale per block: use --mode weights"));
        }
        if self.runtime == Runtime::Ort && (block < 16 || !block.is_power_of_two()) {
            return Err(Error::usage(format!(
                "ONNX Runtime's operators want blocks of 16, 32, 64, ... elements, not {block}: use --runtime portable"
            )));
        }
        if block == 0 {
            return Err(Error::usage("blocks of 0 elements"));
        }
        Ok(())
    }

    /// Whether the weights need what operator set 21 brought: blocks, types of 4 bits, or zero points of a row's own.
    pub fn needs_blocks(&self) -> bool {
        self.weight_bits < 8 || self.block_size.is_some() || !self.symmetric_weights
    }

    /// Elements that share a scale where only weights are quantized; `None` for those of a channel.
    pub fn block(&self) -> Option<usize> {
        let default = (self.mode == Mode::Weights && self.weight_bits < 8).then_some(DEFAULT_BLOCK);
        self.block_size.or(default)
    }
}
