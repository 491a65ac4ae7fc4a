//! Every fact about every operator. One op, one file; a family whose facts are identical is one file with a table.

pub mod spec;

use crate::ir::OpId;
use spec::{OpKey, OpSpec};
use std::collections::HashMap;
use std::sync::OnceLock;

/// One line per file.
static REGISTRY: &[&dyn OpSpec] = &[];

/// The facts about an operator; `None` means that it is opaque.
pub fn spec(op: &OpId) -> Option<&'static dyn OpSpec> {
    static INDEX: OnceLock<HashMap<(&str, &str), &'static dyn OpSpec>> = OnceLock::new();
    let index = INDEX.get_or_init(|| {
        let rows = REGISTRY.iter().flat_map(|s| s.keys().iter().map(|k: &OpKey| ((k.domain, k.op_type), *s)));
        rows.collect()
    });
    index.get(&(&*op.domain, &*op.op_type)).copied()
}
