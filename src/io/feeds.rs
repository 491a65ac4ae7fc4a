//! Feeds: what a model is executed on.

use crate::ir::Tensor;
use std::collections::BTreeMap;

/// One complete set of inputs, by graph input name.
pub type Feed = BTreeMap<String, Tensor>;
