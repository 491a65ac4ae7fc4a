//! SequenceMap. Its outputs are whatever its body makes, which inference does not follow.

use crate::ops::spec::{OpSpec, Schema, op};

/// Applies a body to each element.
pub struct SequenceMap;

impl OpSpec for SequenceMap {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("SequenceMap", &[17])] }
    }

    /// The body may hold random operators.
    fn deterministic(&self) -> bool {
        false
    }
}
