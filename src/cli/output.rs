//! Printing.

use serde::Serialize;
use std::io::Write;

/// Writes to standard output; a reader that went away is no error.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Prints a report as indented JSON.
pub fn print_json(report: &impl Serialize) -> anyhow::Result<()> {
    print(&(serde_json::to_string_pretty(report)? + "\n"))
}

/// The text with line breaks folded into spaces.
pub fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ")
}
