//! Mapped files, and where mapped bytes come from.
//!
//! Weights alias the maps of the files that they were read from, whoever holds them. Whoever writes such bytes out asks
//! here for their place in the file, and lets the system copy from file to file: then the pages are never read into this
//! process, however many gigabytes they are.

use crate::error::{Context, Error, Result};
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A mapped file.
struct Mapped {
    map: memmap2::Mmap,
    file: Mutex<File>,
}

/// The maps that are alive, by address. At most this many: beyond it files are closed, since a process may hold only so
/// many open (exporters once wrote one file per tensor), and their bytes are written from the map.
const MOST: usize = 256;
static MAPS: Mutex<BTreeMap<usize, Weak<Mapped>>> = Mutex::new(BTreeMap::new());

/// Bytes that [`same_bytes`] reads before it compares them.
const COMPARED_AT_ONCE: usize = 1 << 18;

/// Bytes of a mapped file, as a place in it.
pub(super) struct Place {
    source: Arc<Mapped>,
    offset: u64,
    length: u64,
}

/// Maps a file; an empty one is empty bytes.
///
/// # Errors
/// The file is named: absent, unreadable, or not a regular file.
pub(super) fn map_file(path: &Path) -> Result<Bytes> {
    let place = || path.display().to_string();
    let meta = std::fs::metadata(path).context(place)?;
    if !meta.is_file() {
        // Opening a pipe would wait for a writer, so this comes first.
        let what = if meta.is_dir() { "a folder" } else { "not a regular file" };
        return Err(Error::usage(format!("it is {what}, expected a file"))).context(place);
    }
    let file = File::open(path).context(place)?;
    let meta = file.metadata().context(place)?;
    if meta.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the map is read-only and private. Like every reader of mapped files we rely on nobody truncating the file
    // meanwhile; our own writes go to a temporary file that is renamed, which leaves the mapped inode intact.
    let map = unsafe { memmap2::Mmap::map(&file) }.context(place)?;
    let mut maps = locked(&MAPS);
    if maps.len() >= MOST {
        return Ok(Bytes::from_owner(map));
    }
    let mapped = Arc::new(Mapped { map, file: Mutex::new(file) });
    maps.insert(mapped.map.as_ptr() as usize, Arc::downgrade(&mapped));
    Ok(Bytes::from_owner(Owner(mapped)))
}

/// The bytes, read from their place where they alias a mapped file: a look at a mapped page can map megabytes around it,
/// which for a model of many gigabytes adds up.
pub fn peek(bytes: &[u8]) -> Cow<'_, [u8]> {
    let read = || Place::of(bytes)?.read().ok();
    read().map_or(Cow::Borrowed(bytes), Cow::Owned)
}

/// Whether the bytes are equal, with a look at them as [`peek`] looks.
pub fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    let same_place = a.as_ptr() == b.as_ptr();
    let parts = || a.chunks(COMPARED_AT_ONCE).zip(b.chunks(COMPARED_AT_ONCE));
    a.len() == b.len() && (same_place || parts().all(|(a, b)| peek(a) == peek(b)))
}

/// What keeps a map alive.
struct Owner(Arc<Mapped>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0.map
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // Before the memory is given back, so that no other map can be at this address yet.
        locked(&MAPS).remove(&(self.map.as_ptr() as usize));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Place {
    /// The place of bytes that alias a mapped file.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let at = bytes.as_ptr() as usize;
        let source = {
            let maps = locked(&MAPS);
            let (_, weak) = maps.range(..=at).next_back()?;
            weak.upgrade()?
        };
        let offset = at.checked_sub(source.map.as_ptr() as usize)?;
        let inside = offset.checked_add(bytes.len()).is_some_and(|end| end <= source.map.len());
        inside.then(|| Place { source, offset: offset as u64, length: bytes.len() as u64 })
    }

    /// Takes in a place that starts where this one ends; gives it back where it does not.
    pub fn extend(&mut self, next: Place) -> Option<Place> {
        let follows = Arc::ptr_eq(&self.source, &next.source) && self.offset + self.length == next.offset;
        if !follows {
            return Some(next);
        }
        self.length += next.length;
        None
    }

    /// Copies the bytes to where `out` is, inside the system where it can do that.
    pub fn copy_to(&self, out: &mut File) -> io::Result<()> {
        let mut file = locked(&self.source.file); // its position is ours until we are done
        file.seek(SeekFrom::Start(self.offset))?;
        let copied = io::copy(&mut Read::take(&mut *file, self.length), out)?;
        if copied != self.length {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a weight file became shorter while it was read"));
        }
        Ok(())
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut file = locked(&self.source.file);
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = vec![0; self.length as usize];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Held by each test here: one of them takes every place that [`MAPS`] has, and the others need one.
    static ALONE: Mutex<()> = Mutex::new(());

    #[test]
    fn places_of_mapped_bytes() {
        let _alone = locked(&ALONE);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let content: Vec<u8> = (0..10_000u32).map(|k| k as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let bytes = map_file(&path).unwrap();
        assert!(Place::of(&content).is_none(), "not mapped");
        let slice = bytes.slice(100..300).clone();
        let mut place = Place::of(&slice).unwrap();
        assert_eq!((place.offset, place.length), (100, 200));
        assert!(place.extend(Place::of(&bytes[299..400]).unwrap()).is_some());
        assert!(place.extend(Place::of(&bytes[300..5000]).unwrap()).is_none());
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(peek(&slice), Cow::Owned(bytes) if bytes == content[100..300]));
        assert!(matches!(peek(&content), Cow::Borrowed(_)));
        assert!(same_bytes(&bytes, &content) && same_bytes(&bytes[1..9], &bytes[257..265]));
        assert!(!same_bytes(&bytes[1..9], &bytes[2..10]) && !same_bytes(&bytes, &content[1..]));
        let target = folder.path().join("copy");
        let mut out = File::create(&target).unwrap();
        place.copy_to(&mut out).unwrap();
        place.copy_to(&mut out).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), [&content[100..5000], &content[100..5000]].concat());
        let at = bytes.as_ptr() as usize;
        drop((bytes, slice, place));
        assert!(!locked(&MAPS).contains_key(&at), "the map is forgotten with its last bytes");
    }

    /// A process may hold so many files open: exporters once wrote one per tensor.
    #[test]
    fn more_maps_than_files_may_be_open() {
        let _alone = locked(&ALONE);
        let folder = tempfile::tempdir().unwrap();
        let maps: Vec<Bytes> = (0..1500)
            .map(|k| {
                let path = folder.path().join(k.to_string());
                std::fs::write(&path, format!("file {k}")).unwrap();
                map_file(&path).unwrap()
            })
            .collect();
        assert!(maps.iter().enumerate().all(|(k, bytes)| *bytes == format!("file {k}")));
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error() {
        let _alone = locked(&ALONE);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, vec![1; 100_000]).unwrap();
        let bytes = map_file(&path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(5000).unwrap();
        let mut out = File::create(folder.path().join("copy")).unwrap();
        let e = Place::of(&bytes).unwrap().copy_to(&mut out).unwrap_err();
        assert!(e.to_string().contains("shorter"), "{e}");
    }
}
