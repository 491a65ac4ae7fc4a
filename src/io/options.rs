//! How a model is saved.

use crate::error::Error;
use std::str::FromStr;

/// Whether weights go into a data file beside the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ExternalData {
    /// What was external stays external; all weights become it where one file would exceed protobuf's 2 GiB.
    #[default]
    Auto,
    /// Every initializer from the threshold on, and no other.
    Always,
    /// One file, whatever the model was loaded from; an error where that exceeds 2 GiB.
    Never,
}

impl FromStr for ExternalData {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Error> {
        match s {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            other => Err(Error::usage(format!("external data \"{other}\": expected auto, always or never"))),
        }
    }
}

/// Options of [`super::save_with`].
#[derive(Clone, Debug)]
pub struct SaveOptions {
    /// Whether weights go into a data file.
    pub external: ExternalData,
    /// Initializers of at least this many bytes go there, where not only those that were there do. 1,024 unless said
    /// otherwise, as in `onnx.save_model`.
    pub threshold: usize,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self { external: ExternalData::Auto, threshold: 1024 }
    }
}
