//! `sardonyx ops`.

use super::{Common, Done, output};
use clap::Args;
use sardonyx::recipe;

/// Print what is known of each operator, as a Markdown table (or JSON).
///
/// Operators that are not in the table are kept as they are, byte for byte, and nothing is rewritten across them.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Ops {
    /// Only operators whose name contains this.
    filter: Option<String>,
}

impl Ops {
    pub fn run(&self, common: &Common) -> anyhow::Result<Done> {
        let wanted = |name: &str| self.filter.as_ref().is_none_or(|f| name.to_lowercase().contains(&f.to_lowercase()));
        let rows: Vec<_> = recipe::support_table().into_iter().filter(|r| wanted(r.op_type)).collect();
        if common.json {
            output::print_json(&rows)?;
        } else {
            output::print(&recipe::render_markdown(&rows))?;
        }
        Ok(Done::Ok)
    }
}
