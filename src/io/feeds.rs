//! Feeds: what a model is executed on.
//!
//! One convention everywhere: a `.npz` whose arrays are named after graph inputs, axis 0 = sample, batched to what the
//! model allows; or a folder of `.npz` files, each one a complete feed (recurrent state, several shapes); or a folder in
//! the ONNX test layout (`test_data_set_*/input_*.pb`). Labels are one more array. Without data: seeded random input.

mod probe;
mod random;
mod slot;
mod state;
mod stream;

use super::npz::Npz;
use super::{mapped, nesting, tensor_from_proto};
use crate::error::{Context, Error, Result};
use crate::ir::{Graph, Tensor};
use crate::proto;
pub use probe::{Probe, probes};
use prost::Message;
use slot::{Batching, Slot};
pub use state::{State, StateLink};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One complete set of inputs, by graph input name.
pub type Feed = BTreeMap<String, Tensor>;

/// Samples for a model, checked against its inputs. They are read when their batch is asked for.
#[derive(Debug)]
pub struct Dataset {
    slots: Vec<Slot>,
    source: Source,
    batching: Batching,
    samples: usize,
    labels: Option<Vec<i64>>,
    labels_per_sample: usize,
    state: Vec<StateLink>,
}

#[derive(Debug)]
enum Source {
    /// A `.npz` with one array per slot, axis 0 = sample, and the number of samples in it.
    Arrays { path: PathBuf, samples: usize },
    /// One `.npz` per feed.
    Npz(Vec<PathBuf>),
    /// Per feed one `.pb` file per slot.
    TestSets(Vec<Vec<PathBuf>>),
    /// Made up from this seed.
    Random(u64),
}

impl Dataset {
    /// Opens data for `graph`'s required inputs; `label` names the array with one integer per sample.
    ///
    /// Names, shapes and types are checked here; NaN and infinity when the feed is read (not in ONNX test sets, which
    /// hold them on purpose). Only labels are kept in memory.
    ///
    /// # Errors
    /// One line naming the file and the array: missing (with the names that there are), no samples, arrays of different
    /// sample counts, wrong type, rank or fixed size, damaged files.
    pub fn open(path: &Path, graph: &Graph, label: Option<&str>) -> Result<Self> {
        Self::open_stateful(path, graph, label, &State::new())
    }

    /// [`Dataset::open`] for a model with state. Every feed but the first takes its `state` inputs from the feed before
    /// it, in the order of the data; a folder's later files need not hold them.
    ///
    /// # Errors
    /// As [`Dataset::open`]; names in `state` that the graph does not have.
    pub fn open_stateful(path: &Path, graph: &Graph, label: Option<&str>, state: &State) -> Result<Self> {
        let mut slots = slot::required(graph)?;
        let links = state::link(graph, state, &mut slots)?;
        if slots.is_empty() {
            return Err(Error::data("the model has no inputs, so there is nothing to feed"));
        }
        let opened = if !path.is_dir() {
            Self::open_arrays(path, slots, label)
        } else {
            match test_sets(path)? {
                sets if !sets.is_empty() => Self::open_test_sets(sets, slots, label),
                _ => Self::open_npz_folder(path, slots, label),
            }
        };
        let mut data = opened.context(|| path.display().to_string())?;
        data.state = links;
        Ok(data)
    }

    /// Makes the feeds depend on each other: see [`Dataset::open_stateful`].
    ///
    /// # Errors
    /// Names that the graph does not have.
    pub fn link(&mut self, graph: &Graph, state: &State) -> Result<()> {
        self.state = state::link(graph, state, &mut self.slots)?;
        Ok(())
    }

    /// Inputs that are outputs of the feed before. Where there are any, feeds must be run in order.
    pub fn state(&self) -> &[StateLink] {
        &self.state
    }

    /// Seeded random input shaped by the graph: floats are standard normal, integers 0 or 1, names containing "mask" ones,
    /// bools random. A first axis that is not fixed is the batch, every other size that is not fixed is 16. Sample `i` is
    /// the same whatever the batch size.
    ///
    /// # Errors
    /// An input of unknown type or rank, or of a type that cannot be made up.
    pub fn random(graph: &Graph, samples: usize, seed: u64) -> Result<Self> {
        let slots = slot::required(graph)?;
        random::check(&slots)?;
        let batching = Batching::of(&slots).unwrap_or(Batching::Single);
        let samples = samples.max(1).next_multiple_of(batching.fixed().unwrap_or(1));
        Ok(Self {
            slots,
            source: Source::Random(seed),
            batching,
            samples,
            labels: None,
            labels_per_sample: 1,
            state: vec![],
        })
    }

    fn open_arrays(path: &Path, mut slots: Vec<Slot>, label: Option<&str>) -> Result<Self> {
        let mut npz = Npz::open(path)?;
        let mut first: Option<(String, usize)> = None;
        for slot in &mut slots {
            let header = npz.header(&slot.name)?.ok_or_else(|| missing(&slot.name, "input", &npz.names()))?;
            slot.check_samples(header.dtype, &header.dims)?;
            let samples = header.dims[0];
            match &first {
                Some((name, n)) if *n != samples => {
                    let other = &slot.name;
                    return Err(Error::data(format!(
                        "arrays hold different numbers of samples: \"{name}\" {n}, \"{other}\" {samples}"
                    )));
                }
                Some(_) => {}
                None => first = Some((slot.name.to_string(), samples)),
            }
        }
        let samples = first.map_or(0, |(_, n)| n);
        if samples == 0 {
            return Err(Error::data("it holds no samples"));
        }
        let batching = Batching::of(&slots)?;
        if let Some(k) = batching.fixed().filter(|&k| k > samples) {
            return Err(Error::data(format!("the model takes {k} samples at once, the file has {samples}")));
        }
        let labels = label.map(|l| read_labels(&mut npz, l)).transpose()?;
        if let Some((labels, name)) = labels.as_ref().zip(label)
            && labels.len() != samples
        {
            let n = labels.len();
            return Err(Error::data(format!("labels \"{name}\" are {n} numbers for {samples} samples")));
        }
        let source = Source::Arrays { path: path.to_path_buf(), samples };
        Ok(Self { slots, source, batching, samples, labels, labels_per_sample: 1, state: vec![] })
    }

    fn open_npz_folder(path: &Path, slots: Vec<Slot>, label: Option<&str>) -> Result<Self> {
        let is_npz = |p: &PathBuf| p.extension().is_some_and(|e| e == "npz");
        let files: Vec<PathBuf> = entries(path)?.into_iter().filter(is_npz).collect();
        if files.is_empty() {
            return Err(Error::data("the folder holds neither .npz files nor test_data_set_* folders"));
        }
        let mut labels: Vec<Vec<i64>> = vec![];
        for (k, file) in files.iter().enumerate() {
            let place = || file_name(file);
            let mut npz = Npz::open(file).context(place)?;
            for slot in &slots {
                let header = npz.header(&slot.name).context(place)?;
                if header.is_none() && slot.carried && k > 0 {
                    continue;
                }
                let header = header.ok_or_else(|| missing(&slot.name, "input", &npz.names())).context(place)?;
                slot.check_feed(header.dtype, &header.dims).context(place)?;
            }
            if let Some(label) = label {
                labels.push(read_labels(&mut npz, label).context(place)?);
            }
        }
        let per_feed = labels.first().map_or(1, Vec::len);
        if labels.iter().any(|l| l.len() != per_feed) {
            return Err(Error::data("its files hold different numbers of labels"));
        }
        let labels = label.map(|_| labels.concat());
        let samples = files.len();
        let source = Source::Npz(files);
        Ok(Self {
            slots,
            source,
            batching: Batching::Single,
            samples,
            labels,
            labels_per_sample: per_feed,
            state: vec![],
        })
    }

    fn open_test_sets(sets: Vec<Vec<PathBuf>>, slots: Vec<Slot>, label: Option<&str>) -> Result<Self> {
        if label.is_some() {
            return Err(Error::data("ONNX test sets hold no labels"));
        }
        for (k, files) in sets.iter().enumerate() {
            if files.len() != slots.len() {
                let (have, want) = (files.len(), slots.len());
                return Err(Error::data(format!("test set {k} has {have} input files, the model takes {want}")));
            }
            for (slot, file) in slots.iter().zip(files) {
                let tensor = read_pb(file)?;
                slot.check_feed(tensor.dtype, &tensor.dims).context(|| file.display().to_string())?;
            }
        }
        let samples = sets.len();
        let (source, batching) = (Source::TestSets(sets), Batching::Single);
        Ok(Self { slots, source, batching, samples, labels: None, labels_per_sample: 1, state: vec![] })
    }

    /// Whether the samples are made up, which every report must say.
    pub fn is_random(&self) -> bool {
        matches!(self.source, Source::Random(_))
    }

    /// Whether each sample is a complete feed of its own, so that samples cannot be batched.
    pub fn feeds_are_complete(&self) -> bool {
        matches!(self.source, Source::Npz(_) | Source::TestSets(_))
    }

    /// Number of samples; where every file is a complete feed, the number of files.
    pub fn len(&self) -> usize {
        self.samples
    }

    /// Never: opening data without samples is an error.
    pub fn is_empty(&self) -> bool {
        self.samples == 0
    }

    /// Keeps the first `n` samples, and at least as many as the model takes at once.
    pub fn limit(&mut self, n: usize) {
        self.samples = self.samples.min(n.max(self.batching.fixed().unwrap_or(1)));
    }

    /// The labels of all samples, in order. Where one file is one feed, those of all files, one after another.
    pub fn labels(&self) -> Option<&[i64]> {
        let labels = self.labels.as_deref()?;
        labels.get(..self.samples * self.labels_per_sample)
    }

    /// Divides the samples into feeds of `batch` samples, or of what the model fixes.
    pub fn batches(&self, batch: usize) -> Batches<'_> {
        let size = self.batching.size(batch.max(1)).min(self.samples.max(1));
        Batches { data: self, size }
    }

    /// A feed of any source whose feeds can be made in any order.
    fn feed(&self, range: Range<usize>) -> Result<Feed> {
        match &self.source {
            Source::Arrays { .. } => Err(Error::internal("arrays are read in order")),
            Source::Npz(files) => self.read_npz_feed(at(files, range.start)?),
            Source::TestSets(sets) => {
                let files = at(sets, range.start)?;
                let read = |(slot, file): (&Slot, &PathBuf)| Ok((slot.name.to_string(), read_pb(file)?));
                self.slots.iter().zip(files).map(read).collect()
            }
            Source::Random(seed) => random::feed(&self.slots, self.batching, *seed, range),
        }
    }

    /// Checks rows that were read from arrays, the first one of them sample `start`, and gives them the inputs' shapes.
    fn finish_samples(&self, mut feed: Feed, start: usize) -> Result<Feed> {
        for slot in &self.slots {
            let Some(rows) = feed.get_mut(&*slot.name) else { continue };
            slot.check_finite(rows, Some(start))?;
            if slot.adds_sample_axis {
                rows.dims.remove(0);
            }
        }
        Ok(feed)
    }

    fn read_npz_feed(&self, file: &Path) -> Result<Feed> {
        let place = || file.display().to_string();
        let mut npz = Npz::open(file).context(place)?;
        let mut feed = Feed::new();
        for slot in &self.slots {
            let array = npz.array(&slot.name).context(place)?;
            if array.is_none() && slot.carried {
                continue; // the first file was checked to have it
            }
            let array = array.ok_or_else(|| missing(&slot.name, "input", &npz.names())).context(place)?;
            slot.check_feed(array.dtype, &array.dims).context(place)?; // the file may have changed since it was opened
            slot.check_finite(&array, None).context(place)?;
            feed.insert(slot.name.to_string(), array);
        }
        Ok(feed)
    }
}

/// The samples of a [`Dataset`], divided into feeds.
#[derive(Clone, Copy, Debug)]
pub struct Batches<'a> {
    data: &'a Dataset,
    size: usize,
}

impl Batches<'_> {
    /// Number of feeds.
    pub fn len(&self) -> usize {
        match self.data.batching {
            Batching::Fixed(_) => self.data.samples / self.size,
            _ => self.data.samples.div_ceil(self.size),
        }
    }

    /// Whether there is no feed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Samples of a full feed.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Samples at the end that do not fill a feed of the size that the model fixes, so they are in none: report it.
    pub fn dropped(&self) -> usize {
        self.data.samples.saturating_sub(self.len() * self.size)
    }

    /// The samples in feed `i`.
    pub fn samples(&self, i: usize) -> Range<usize> {
        let start = (i * self.size).min(self.data.samples);
        start..(start + self.size).min(self.data.samples)
    }
}

fn at<T>(items: &[T], i: usize) -> Result<&T> {
    items.get(i).ok_or_else(|| Error::internal(format!("feed {i} of {}", items.len())))
}

fn missing(name: &str, what: &str, have: &[String]) -> Error {
    let have = if have.is_empty() { "no arrays".into() } else { have.join(", ") };
    Error::data(format!("no array \"{name}\" for the {what} of that name; the file has {have}"))
}

fn read_labels(npz: &mut Npz, name: &str) -> Result<Vec<i64>> {
    let array = npz.array(name)?.ok_or_else(|| missing(name, "label", &npz.names()))?;
    if !array.dtype.is_int() {
        return Err(Error::data(format!("labels \"{name}\" are {}, expected integers", array.dtype)));
    }
    array.to_i64().map_err(|e| Error::data(format!("labels \"{name}\": {e}")))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What a folder holds, sorted by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = std::fs::read_dir(folder).context(|| folder.display().to_string())?;
    let paths: std::io::Result<Vec<PathBuf>> = read.map(|e| e.map(|e| e.path())).collect();
    let mut paths = paths?;
    paths.sort();
    Ok(paths)
}

/// The files `<prefix><number><suffix>` of a folder, by number.
fn numbered(folder: &Path, prefix: &str, suffix: &str) -> Result<Vec<PathBuf>> {
    let number = |p: &PathBuf| -> Option<u64> { file_name(p).strip_prefix(prefix)?.strip_suffix(suffix)?.parse().ok() };
    let mut found: Vec<(u64, PathBuf)> =
        entries(folder)?.into_iter().filter_map(|p| number(&p).map(|n| (n, p))).collect();
    found.sort();
    Ok(found.into_iter().map(|(_, p)| p).collect())
}

/// The input files of every test set in a folder of the ONNX test layout.
fn test_sets(folder: &Path) -> Result<Vec<Vec<PathBuf>>> {
    let sets = numbered(folder, "test_data_set_", "")?;
    sets.iter().map(|set| numbered(set, "input_", ".pb")).collect()
}

fn read_pb(file: &Path) -> Result<Tensor> {
    let place = || file.display().to_string();
    let bytes = mapped::map_file(file)?;
    nesting::check(&bytes, nesting::Kind::Tensor).context(place)?;
    let message = proto::TensorProto::decode(bytes).map_err(Error::from);
    let tensor = message.and_then(tensor_from_proto).map(|(_, t)| t);
    tensor.context(place)
}

#[cfg(test)]
mod tests;
