//! Samples in memory, to be taken in any order.

use crate::error::{Error, Result};
use crate::io::{Dataset, Feed};
use crate::ir::Tensor;
use std::sync::{Mutex, PoisonError};

/// What the model takes at once, in memory: one sample, or as many as its batch size fixes.
pub struct Samples {
    feeds: Vec<Feed>,
    labels: Option<Vec<i64>>,
    labels_per_feed: usize,
    /// Whether several feeds can be joined along their first axes.
    joinable: bool,
}

impl Samples {
    /// Reads all of `data`. `joinable`: the model takes any number of samples at once.
    ///
    /// # Errors
    /// Damaged files; NaN and infinity, with their sample.
    pub fn read(data: &Dataset) -> Result<Self> {
        let batches = data.batches(1);
        let found = Mutex::new(Vec::with_capacity(batches.len()));
        let keep = |_: &mut (), i: usize, feed: &Feed| {
            found.lock().unwrap_or_else(PoisonError::into_inner).push((i, feed.clone()));
            Ok(())
        };
        batches.fold(|| (), keep)?;
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_by_key(|(i, _)| *i);
        let feeds: Vec<Feed> = found.into_iter().map(|(_, f)| f).collect();
        let labels = data.labels().map(<[i64]>::to_vec);
        let labels_per_feed = labels.as_ref().map_or(0, |l| l.len() / data.len().max(1) * batches.size());
        // A model with a free batch size makes feeds as large as they are asked for.
        let joinable = data.batches(2).size() != batches.size() && feeds.len() > 1;
        Ok(Self { feeds, labels, labels_per_feed, joinable })
    }

    /// Number of feeds.
    pub fn len(&self) -> usize {
        self.feeds.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.feeds.is_empty()
    }

    /// One feed.
    pub fn feed(&self, i: usize) -> &Feed {
        &self.feeds[i]
    }

    /// Whether several feeds can be joined.
    pub fn joinable(&self) -> bool {
        self.joinable
    }

    /// Labels of these feeds, where there are labels.
    pub fn labels(&self, which: &[usize]) -> Option<Vec<i64>> {
        let (labels, n) = (self.labels.as_ref()?, self.labels_per_feed);
        Some(which.iter().flat_map(|&i| labels[i * n..(i + 1) * n].iter().copied()).collect())
    }

    /// These feeds as one.
    ///
    /// # Errors
    /// Feeds of different shapes.
    pub fn joined(&self, which: &[usize]) -> Result<Feed> {
        let Some(&first) = which.first() else { return Err(Error::internal("no feeds to join")) };
        if which.len() == 1 {
            return Ok(self.feeds[first].clone());
        }
        let join = |(name, t): (&String, &Tensor)| {
            let tensors: Vec<&Tensor> = which.iter().filter_map(|&i| self.feeds[i].get(name)).collect();
            Ok((name.clone(), join_rows(&tensors, t.dims.first().copied().unwrap_or(1))?))
        };
        self.feeds[first].iter().map(join).collect()
    }
}

/// Tensors of `rows` rows each, one after another.
fn join_rows(tensors: &[&Tensor], rows: usize) -> Result<Tensor> {
    let Some(first) = tensors.first().filter(|t| t.rank() > 0) else {
        return Err(Error::data("an input without a sample axis cannot be batched"));
    };
    if tensors.iter().any(|t| t.dims != first.dims) {
        return Err(Error::data("samples of different shapes cannot be batched"));
    }
    let mut bytes = vec![];
    for t in tensors {
        bytes.extend_from_slice(&t.bytes()?);
    }
    let mut dims = first.dims.clone();
    dims[0] = rows * tensors.len();
    Ok(Tensor::raw(first.dtype, &dims, bytes))
}
