//! Prints a model for whoever looks for the pass that breaks something.

use crate::error::Result;
use crate::ir::Model;
use std::io::Write;

/// Writes the model in text to standard error, which is where people look for it.
pub(super) fn dump(model: &Model) -> Result<()> {
    let text = crate::io::text::print_model(model)?;
    std::io::stderr().lock().write_all(text.as_bytes())?;
    Ok(())
}
