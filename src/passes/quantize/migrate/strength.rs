//! How far to migrate.

use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How far the range of a layer's input channels moves into its weight. Spelled `none`, `auto`, or a strength such as `0.8`.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Migrate {
    /// Not at all.
    #[default]
    None,
    /// As far as makes the error of each layer's output smallest, on the calibration data.
    Auto,
    /// With this strength `a` between 0 and 1: channel `j` is divided by `max|X_j|^a / max|W_j|^(1-a)`
    /// (Xiao et al., SmoothQuant, 2022, equation 4).
    Strength(f64),
}

impl fmt::Display for Migrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Auto => f.write_str("auto"),
            Self::Strength(a) => write!(f, "{a}"),
        }
    }
}

impl FromStr for Migrate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let strength = || text.parse().ok().filter(|a| (0.0..=1.0).contains(a)).map(Self::Strength);
        let wrong = || Error::usage(format!("migration \"{text}\": expected none, auto or a number between 0 and 1"));
        match text {
            "none" => Ok(Self::None),
            "auto" => Ok(Self::Auto),
            _ => strength().ok_or_else(wrong),
        }
    }
}

impl TryFrom<String> for Migrate {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Migrate> for String {
    fn from(migrate: Migrate) -> Self {
        migrate.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling() {
        for (text, value) in [("none", Migrate::None), ("auto", Migrate::Auto), ("0.8", Migrate::Strength(0.8))] {
            assert_eq!(text.parse::<Migrate>().unwrap(), value);
            assert_eq!(value.to_string(), text);
        }
        for wrong in ["1.5", "-0.1", "NaN", "strong", ""] {
            assert!(wrong.parse::<Migrate>().is_err(), "{wrong}");
        }
    }
}
