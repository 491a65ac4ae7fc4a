//! Reading a dataset from front to back.

use super::slot::Slot;
use super::{Batches, Feed, Source, missing};
use crate::error::{Context, Error, Result};
use crate::io::npz::{Npz, Rows};
use crate::ir::Tensor;
use rayon::prelude::*;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Hands out feeds, in order, to whichever thread asks.
pub(super) struct Stream<'a> {
    batches: Batches<'a>,
    at: Mutex<Position>,
}

struct Position {
    /// The feed that comes next.
    next: usize,
    /// Where the source is one array per slot: their rows that are not read yet.
    arrays: Vec<Rows>,
}

impl<'a> Batches<'a> {
    pub(super) fn stream(&self) -> Result<Stream<'a>> {
        let arrays = match &self.data.source {
            Source::Arrays { path, samples } => {
                open_arrays(path, *samples, &self.data.slots).context(|| path.display().to_string())?
            }
            _ => vec![],
        };
        Ok(Stream { batches: *self, at: Mutex::new(Position { next: 0, arrays }) })
    }

    /// Does `work` with the number and the inputs of every feed, on all threads of the pool; each thread folds into a
    /// state of its own, made by `init`. Returns the states.
    ///
    /// Which thread gets which feed differs from run to run, so the states must combine to the same in every way.
    /// Memory does not grow with the number of samples: a thread holds one feed at a time, made when it asks for it.
    ///
    /// # Errors
    /// Of the first feed that cannot be read (a damaged file; NaN or infinity, naming array and sample) or for which
    /// `work` fails: the same whatever the number of threads. A checksum is checked where its array ends, so not where
    /// [`super::Dataset::limit`] leaves samples out.
    pub fn fold<S: Send>(
        &self,
        init: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, usize, &Feed) -> Result<()> + Sync,
    ) -> Result<Vec<S>> {
        let stream = self.stream()?;
        let one_thread = |_| {
            let mut state = init();
            while let Some((i, feed)) = stream.next() {
                if let Err(e) = feed.and_then(|feed| work(&mut state, i, &feed)) {
                    stream.stop();
                    return Err((i, e));
                }
            }
            Ok(state)
        };
        let parts: Vec<_> = (0..rayon::current_num_threads()).into_par_iter().map(one_thread).collect();
        let (mut states, mut first) = (vec![], None);
        for part in parts {
            match part {
                Ok(state) => states.push(state),
                // Feeds are handed out in order: those before a failed one were all tried, whatever was stopped.
                Err((i, e)) if first.as_ref().is_none_or(|(j, _)| i < *j) => first = Some((i, e)),
                Err(_) => {}
            }
        }
        first.map_or(Ok(states), |(_, e)| Err(e))
    }

    /// Does `work` with the number and the inputs of every feed, one after another.
    ///
    /// # Errors
    /// The first: a feed that cannot be read, or what `work` reports.
    pub fn in_order(&self, mut work: impl FnMut(usize, Feed) -> Result<()>) -> Result<()> {
        let stream = self.stream()?;
        while let Some((i, feed)) = stream.next() {
            work(i, feed?)?;
        }
        Ok(())
    }
}

/// Feeds that are worked on at once by [`Batches::waves`], whatever the number of threads.
const WAVE: usize = 16;

impl Batches<'_> {
    /// Does `work` with every feed, some of them at once, and hands what it made to `take` in the order of the feeds: for
    /// sums that must not depend on the number of threads. Memory holds what a few feeds make.
    ///
    /// # Errors
    /// As [`Batches::fold`], and those of `take`.
    pub fn waves<T: Send>(
        &self,
        work: impl Fn(usize, &Feed) -> Result<T> + Sync,
        mut take: impl FnMut(Vec<T>) -> Result<()>,
    ) -> Result<()> {
        let stream = self.stream()?;
        loop {
            let mut feeds = vec![];
            while feeds.len() < WAVE
                && let Some((i, feed)) = stream.next()
            {
                feeds.push((i, feed?));
            }
            if feeds.is_empty() {
                return Ok(());
            }
            let made: Vec<Result<T>> = feeds.par_iter().map(|(i, feed)| work(*i, feed)).collect();
            take(made.into_iter().collect::<Result<_>>()?)?;
        }
    }
}

impl Stream<'_> {
    /// The next feed and its number; `None` after the last one.
    pub fn next(&self) -> Option<(usize, Result<Feed>)> {
        let Batches { data, size } = self.batches;
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        let i = at.next;
        if i >= self.batches.len() {
            return None;
        }
        at.next += 1;
        let range = self.batches.samples(i);
        let Source::Arrays { path, .. } = &data.source else {
            drop(at);
            return Some((i, data.feed(range)));
        };
        let place = || path.display().to_string();
        let last = at.next == self.batches.len();
        let mut feed = Feed::new();
        for (slot, array) in data.slots.iter().zip(&mut at.arrays) {
            match read(slot, array, range.len(), last.then_some(size)).context(place) {
                Ok(rows) => feed.insert(slot.name.to_string(), rows),
                Err(e) => return Some((i, Err(e))),
            };
        }
        drop(at); // the rest needs no turn
        Some((i, data.finish_samples(feed, range.start).context(place)))
    }

    /// Hands out no more feeds.
    pub fn stop(&self) {
        self.at.lock().unwrap_or_else(PoisonError::into_inner).next = usize::MAX;
    }
}

/// The next rows of an array; with the last ones, those that do not fill a feed, so that damage among them is found.
fn read(slot: &Slot, array: &mut Rows, count: usize, last: Option<usize>) -> Result<Tensor> {
    let place = || format!("array \"{}\"", slot.name);
    let rows = array.next(count).context(place)?;
    if last.is_some_and(|size| (1..size).contains(&array.left())) {
        array.next(array.left()).context(place)?;
    }
    Ok(rows)
}

fn open_arrays(path: &Path, samples: usize, slots: &[Slot]) -> Result<Vec<Rows>> {
    let mut npz = Npz::open(path)?;
    let open = |slot: &Slot| {
        let elements = npz.elements(&slot.name)?.ok_or_else(|| missing(&slot.name, "input", &npz.names()))?;
        // The file may have changed since it was checked.
        let mut found = Slot { name: slot.name.clone(), elem: slot.elem, shape: slot.shape.clone(), ..*slot };
        found.check_samples(elements.header.dtype, &elements.header.dims)?;
        if elements.header.dims[0] != samples || found.adds_sample_axis != slot.adds_sample_axis {
            return Err(Error::data(format!("array \"{}\" changed while it was used", slot.name)));
        }
        elements.rows().context(|| format!("array \"{}\"", slot.name))
    };
    slots.iter().map(open).collect()
}
