//! Importance by gradients, for the steps that go by it.

use super::progress::Progress;
use super::quantize::RANDOM_SAMPLES;
use crate::error::{Context, Result};
use crate::io::Dataset;
use crate::ir::Model;
use crate::recover::{self, Importance, ImportanceOptions};
use std::path::Path;

/// At most this many samples where nothing else is said: each one takes a pass back of its own.
const SAMPLES: usize = 512;

/// Importance of what gradients reach, and a note on what they do not.
pub(super) struct Found {
    pub list: Vec<Importance>,
    pub note: Option<String>,
}

/// Data for gradients; random where there are none.
pub(super) fn open(model: &Model, path: Option<&Path>, label: Option<&str>, samples: Option<usize>) -> Result<Dataset> {
    let Some(path) = path else {
        return Dataset::random(&model.graph, samples.unwrap_or(RANDOM_SAMPLES), 0);
    };
    let mut data = Dataset::open(path, &model.graph, label)?;
    data.limit(samples.unwrap_or(SAMPLES));
    Ok(data)
}

/// Importance of every parameter: of the loss on labels where the data have them, else of the model's own output.
pub(super) fn importance(model: &Model, data: &Dataset, progress: &dyn Progress) -> Result<Found> {
    progress.start("gradients", data.batches(1).len());
    let options = ImportanceOptions { labels: data.labels().is_some(), ..ImportanceOptions::default() };
    let found = recover::importance(model, data, &options, &|| progress.tick());
    progress.finish();
    let (list, frozen) = found.context(|| "importance by gradients")?;
    let elements: usize = frozen.iter().map(|f| f.elements).sum();
    let note = frozen.first().map(|f| {
        let (count, why) = (frozen.len(), &f.why);
        format!("no gradient reaches {count} parameters ({elements} numbers), so nothing is known of their importance: {why}")
    });
    Ok(Found { list, note })
}
