//! Statistics that outlive the run, so that another method, or another quantization, needs no data.

use super::histogram::MAX_BINS;
use super::{Method, RangeSpec, Statistics, range};
use crate::error::{Context, Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The format that [`CalibrationTable::to_json`] writes.
pub const TABLE_VERSION: u32 = 1;

/// Statistics of a model's values over calibration data.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationTable {
    version: u32,
    /// The model's graph name.
    pub graph: String,
    /// A hash of the model, in the caller's own format: a table fits only the model it was made with.
    pub model_hash: String,
    /// Number of samples.
    pub samples: u64,
    /// Whether the samples were random numbers for want of data.
    pub random: bool,
    /// Statistics by value name.
    pub values: BTreeMap<String, Statistics>,
    /// Mean of each channel of the inputs of linear layers, by value name.
    pub channel_means: BTreeMap<String, Vec<f32>>,
}

impl CalibrationTable {
    /// An empty table for a model.
    pub fn new(graph: impl Into<String>, model_hash: impl Into<String>, samples: u64, random: bool) -> Self {
        let (graph, model_hash) = (graph.into(), model_hash.into());
        Self {
            version: TABLE_VERSION,
            graph,
            model_hash,
            samples,
            random,
            values: BTreeMap::new(),
            channel_means: BTreeMap::new(),
        }
    }

    /// The range of a value, `None` where it was not observed. See [`range`].
    pub fn range(&self, name: &str, method: Method, spec: &RangeSpec) -> Option<(f32, f32)> {
        self.values.get(name).map(|statistics| range(statistics, method, spec))
    }

    /// The table as indented JSON, values in the order of their names; equal tables give equal text.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self);
        text.map(|t| t + "\n").map_err(|e| Error::internal(format!("calibration table: {e}")))
    }

    /// The table that [`Self::to_json`] wrote. Every range derived from it is bit for bit that of the original.
    ///
    /// # Errors
    /// Text that is not such a table: another version, unknown keys, statistics that contradict themselves.
    pub fn from_json(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Header {
            version: u32,
        }
        let malformed = |e: serde_json::Error| Error::data(format!("calibration table: {e}"));
        // The version first: a later format may have keys that this one refuses.
        let Header { version } = serde_json::from_str(text).map_err(malformed)?;
        if version != TABLE_VERSION {
            return Err(Error::data(format!(
                "calibration table: version {version} is not supported, only {TABLE_VERSION}; calibrate again"
            )));
        }
        serde_json::from_str(text).map_err(malformed)
    }
}

/// [`Statistics`] as the file has them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    // As f64, every f32 survives any JSON parser.
    min: f64,
    max: f64,
    count: u64,
    zeros: u64,
    /// Bins are `2^exponent` wide and begin at `first_bin * 2^exponent`.
    exponent: i32,
    first_bin: i32,
    /// Values per bin; `7x3` for three bins of 7 each.
    histogram: String,
}

impl Serialize for Statistics {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (first_bin, counts) = self.bins();
        let record = Record {
            min: self.min.into(),
            max: self.max.into(),
            count: self.count,
            zeros: self.zeros,
            exponent: self.exponent,
            first_bin,
            histogram: encode(counts),
        };
        record.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Statistics {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let record = Record::deserialize(deserializer)?;
        Statistics::try_from(record).map_err(serde::de::Error::custom)
    }
}

impl TryFrom<Record> for Statistics {
    type Error = Error;

    fn try_from(r: Record) -> Result<Self> {
        let counts = decode(&r.histogram).context(|| "histogram")?;
        let extremes = (r.min as f32, r.max as f32);
        let statistics = Self::from_parts(extremes, r.zeros, r.exponent, r.first_bin, &counts)?;
        if statistics.count != r.count {
            let sum = statistics.count;
            return Err(Error::data(format!("the bins hold {sum} values, but the count is {}", r.count)));
        }
        Ok(statistics)
    }
}

/// Counts with runs of equal ones contracted.
fn encode(counts: impl Iterator<Item = u64>) -> String {
    let mut runs: Vec<(u64, usize)> = Vec::new();
    for n in counts {
        match runs.last_mut() {
            Some((value, len)) if *value == n => *len += 1,
            _ => runs.push((n, 1)),
        }
    }
    let mut text = String::new();
    for (value, len) in runs {
        let gap = if text.is_empty() { "" } else { " " };
        let times = if len > 1 { format!("x{len}") } else { String::new() };
        // Writing to a String cannot fail.
        let _ = write!(text, "{gap}{value}{times}");
    }
    text
}

fn decode(text: &str) -> Result<Vec<u64>> {
    let mut counts = Vec::new();
    for word in text.split_ascii_whitespace() {
        let (value, len) = word.split_once('x').unwrap_or((word, "1"));
        let (Ok(value), Ok(len)) = (value.parse::<u64>(), len.parse::<usize>()) else {
            return Err(Error::data(format!("\"{word}\" is not a count")));
        };
        // Checked before anything is allocated: a short text must not ask for much memory.
        if len > MAX_BINS - counts.len() {
            return Err(Error::data(format!("more than {MAX_BINS} bins")));
        }
        counts.resize(counts.len() + len, value);
    }
    Ok(counts)
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
