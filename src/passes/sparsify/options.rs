//! What the caller may choose.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Settings of sparsification. Every field has the default that the command line has.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SparsifyOptions {
    /// Which weights become zero; absent: none, and the step only stores what is zero already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
    /// How much a weight matters.
    pub importance: Measure,
    /// Zeros come in blocks of this size: with a sparsity as the goal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<Block>,
    /// Rank the weights of all layers together instead of taking the same share of each.
    pub global: bool,
    /// Only layers that match one of these (name, glob over names, or operator type); empty = all.
    pub include: Vec<String>,
    /// No layer that matches one of these.
    pub exclude: Vec<String>,
    /// Remove channels that zeros make superfluous, and fold what they gave into biases.
    pub fold: bool,
    /// Store as `sparse_initializer` what is smaller that way.
    pub store: bool,
}

/// Which weights become zero.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// This share of the weights, 0 to 1, smallest magnitudes first.
    Sparsity(f64),
    /// Magnitudes, or whatever importance is, below this.
    Threshold(f32),
    /// All but N of every M weights in a row along the input channels.
    Pattern(Pattern),
}

/// How much a weight matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Its magnitude.
    #[default]
    Magnitude,
    /// What zeroing it does to the layer's outputs on data; the weights that stay take up what they can of it.
    Hessian,
    /// `R(w) = E[(dL/dw)^2]`.
    Fisher,
    /// `w^2 R(w)`.
    WeightedFisher,
    /// `E|w dL/dw|` (Molchanov et al., Importance Estimation for Neural Network Pruning, 2019).
    Taylor,
}

/// Blocks of weights that are zero together: outputs by inputs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Block {
    /// Output channels.
    pub outputs: usize,
    /// Input channels (of one place of a convolution's window).
    pub inputs: usize,
}

impl FromStr for Block {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let wrong = || Error::usage(format!("block \"{s}\" is not OUTPUTSxINPUTS, as 4x1"));
        let (outputs, inputs) = s.split_once('x').ok_or_else(wrong)?;
        let (outputs, inputs) = (outputs.parse().map_err(|_| wrong())?, inputs.parse().map_err(|_| wrong())?);
        if outputs == 0 || inputs == 0 { Err(wrong()) } else { Ok(Self { outputs, inputs }) }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.outputs, self.inputs)
    }
}

impl TryFrom<String> for Block {
    type Error = Error;

    fn try_from(s: String) -> Result<Self> {
        s.parse()
    }
}

impl From<Block> for String {
    fn from(b: Block) -> Self {
        b.to_string()
    }
}

/// N of every M weights stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    /// How many stay.
    pub keep: usize,
    /// Of how many.
    pub of: usize,
}

impl FromStr for Pattern {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let wrong = || Error::usage(format!("pattern \"{s}\" is not N:M with 0 < N <= M, as 2:4"));
        let (keep, of) = s.split_once(':').ok_or_else(wrong)?;
        let (keep, of) = (keep.parse().map_err(|_| wrong())?, of.parse().map_err(|_| wrong())?);
        if keep == 0 || keep > of { Err(wrong()) } else { Ok(Self { keep, of }) }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.keep, self.of)
    }
}

impl TryFrom<String> for Pattern {
    type Error = Error;

    fn try_from(s: String) -> Result<Self> {
        s.parse()
    }
}

impl From<Pattern> for String {
    fn from(p: Pattern) -> Self {
        p.to_string()
    }
}

impl Default for SparsifyOptions {
    fn default() -> Self {
        Self {
            goal: None,
            importance: Measure::Magnitude,
            block: None,
            global: false,
            include: vec![],
            exclude: vec![],
            fold: false,
            store: true,
        }
    }
}

impl SparsifyOptions {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// A share outside of 0 to 1, a negative threshold, options that exclude each other.
    pub fn check(&self) -> Result<()> {
        if self.block.is_some() && !matches!(self.goal, Some(Goal::Sparsity(_))) {
            return Err(Error::usage("blocks need a sparsity as the goal"));
        }
        match self.goal {
            Some(Goal::Sparsity(s)) if !(0.0..=1.0).contains(&s) => {
                Err(Error::usage(format!("sparsity must be between 0 and 1, not {s}")))
            }
            Some(Goal::Threshold(t)) if !t.is_finite() || t < 0.0 => {
                Err(Error::usage(format!("a threshold must be a positive number, not {t}")))
            }
            Some(Goal::Pattern(_)) if self.global => {
                Err(Error::usage("a pattern is the same for every layer: it goes without --global"))
            }
            _ => Ok(()),
        }
    }
}
