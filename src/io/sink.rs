//! What files are written through: a buffer that lets big mapped bytes go from file to file.

use super::mapped::Place;
use bytes::buf::UninitSlice;
use bytes::{Buf, BufMut};
use std::fs::File;
use std::io::{self, BufWriter, Write};

/// From this many bytes on, copying from file to file takes less than reading the mapped pages.
const BIG: usize = 1 << 16;

/// A file that is written from its start to its end. Its [`BufMut`] half is what protobuf encodes into, so that a message
/// with gigabytes of weights never exists as bytes; as that interface knows no errors, the first one is kept for
/// [`Sink::finish`].
pub(super) struct Sink<'a> {
    out: BufWriter<&'a mut File>,
    /// Mapped bytes that come next; what follows them in their file may join them.
    pending: Option<Place>,
    error: Option<io::Error>,
    scratch: [u8; 64],
}

impl<'a> Sink<'a> {
    pub fn new(file: &'a mut File) -> Self {
        Self { out: BufWriter::with_capacity(1 << 20, file), pending: None, error: None, scratch: [0; 64] }
    }

    /// Writes what is still buffered.
    ///
    /// # Errors
    /// The first one of all the writing.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.error.take().map_or(Ok(()), Err)
    }

    fn put_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let place = if bytes.len() >= BIG { Place::of(bytes) } else { None };
        let Some(place) = place else {
            self.copy_pending()?;
            return self.out.write_all(bytes);
        };
        let rest = match &mut self.pending {
            Some(pending) => pending.extend(place),
            None => Some(place),
        };
        if let Some(place) = rest {
            self.copy_pending()?;
            self.pending = Some(place);
        }
        Ok(())
    }

    fn copy_pending(&mut self) -> io::Result<()> {
        let Some(place) = self.pending.take() else { return Ok(()) };
        self.out.flush()?;
        place.copy_to(self.out.get_mut())
    }

    fn keep_error(&mut self, result: io::Result<()>) {
        if let Err(e) = result {
            self.error.get_or_insert(e);
        }
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put_bytes(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.copy_pending()?;
        self.out.flush()
    }
}

// SAFETY: `chunk_mut` gives memory that `self` owns, and `advance_mut` takes the bytes that were written there, no more
// than that memory holds.
unsafe impl BufMut for Sink<'_> {
    fn remaining_mut(&self) -> usize {
        usize::MAX
    }

    unsafe fn advance_mut(&mut self, count: usize) {
        let scratch = self.scratch;
        self.put_slice(&scratch[..count]);
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        UninitSlice::new(&mut self.scratch)
    }

    fn put<T: Buf>(&mut self, mut source: T) {
        while source.has_remaining() {
            let bytes = source.chunk();
            let count = bytes.len();
            self.put_slice(bytes);
            source.advance(count);
        }
    }

    fn put_slice(&mut self, bytes: &[u8]) {
        if self.error.is_none() {
            let result = self.put_bytes(bytes);
            self.keep_error(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mapped::map_file;
    use super::*;

    #[test]
    fn mapped_and_other_bytes_keep_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let content: Vec<u8> = (0..4 * BIG as u32).map(|k| ((k * 7) >> 3) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let bytes = map_file(&path).unwrap();
        let pieces = [
            bytes.slice(5..BIG + 5),
            bytes.slice(BIG + 5..2 * BIG + 5),
            bytes.slice(1..4),
            bytes::Bytes::from_static(b"between"),
            bytes.slice(2 * BIG..4 * BIG),
            bytes.slice(..BIG),
        ];
        let target = folder.path().join("out");
        let mut file = File::create(&target).unwrap();
        let mut sink = Sink::new(&mut file);
        for piece in &pieces {
            sink.put(piece.clone());
            sink.put_u8(1);
            sink.put_bytes(piece).unwrap();
        }
        sink.chunk_mut()[..2].copy_from_slice(b"xy");
        // SAFETY: two bytes were written above.
        unsafe { sink.advance_mut(2) };
        sink.finish().unwrap();
        let mut want: Vec<u8> = pieces.iter().flat_map(|p| [p, &b"\x01"[..], p].concat()).collect();
        want.extend(b"xy");
        assert!(std::fs::read(&target).unwrap() == want);
    }

    #[test]
    fn the_first_error_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, b"").unwrap();
        let mut file = File::open(&path).unwrap(); // not writable
        let mut sink = Sink::new(&mut file);
        sink.put_slice(&vec![0; 4 << 20]);
        sink.put_slice(b"more");
        assert!(sink.finish().is_err());
    }
}
