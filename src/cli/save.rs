//! How results are stored.

use clap::Args;
use sardonyx::io::{ExternalData, SaveOptions};

/// Where the weights go.
#[derive(Args)]
pub struct SaveArgs {
    /// Weights in a file of their own beside the model, `OUT.data`: auto keeps outside what was outside and moves everything
    /// there where one file would exceed 2 GiB; always moves every initializer from the threshold on; never writes one file.
    #[arg(long, value_name = "auto|always|never", default_value = "auto")]
    external_data: ExternalData,
    /// Smallest initializer, in bytes, that is moved to the data file.
    #[arg(long, value_name = "BYTES", default_value_t = SaveOptions::default().threshold)]
    external_threshold: usize,
}

impl SaveArgs {
    /// The options as the recipe has them.
    pub fn options(&self) -> SaveOptions {
        SaveOptions { external: self.external_data, threshold: self.external_threshold }
    }
}
