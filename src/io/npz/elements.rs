//! The elements of one stored array, inflated from front to back.

use super::{Header, damaged, read_header, row_major};
use crate::error::{Error, Result};
use crate::ir::Tensor;
use flate2::Crc;
use flate2::bufread::DeflateDecoder;
use npyz::zip::CompressionMethod;
use npyz::zip::read::ZipFile;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// Deflate cannot expand more than this, so a header that promises more is not believed when reserving memory.
const MAX_EXPANSION: u64 = 1032;

/// An array of which the header was read, and no element.
pub(in crate::io) struct Elements {
    pub header: Header,
    /// Bytes of all elements.
    size: usize,
    entry: Entry,
}

/// An array, handed out row by row (axis 0), in order.
pub(in crate::io) enum Rows {
    /// Inflated as asked for.
    Stored { elements: Elements, left: usize },
    /// Column-major, so every row needs the whole: the rows that are left.
    Whole(Tensor),
}

/// A reader of its own on an entry: the zip crate's borrows the archive and cannot change threads.
struct Entry {
    inflated: Box<dyn Read + Send>,
    crc: Crc,
    want: u32,
}

impl Elements {
    /// Opens the zip entry of `path`, a file of `file_bytes` bytes, and reads the header.
    pub fn open(path: &Path, file_bytes: u64, zip: &ZipFile) -> Result<Self> {
        let most = zip.size().min(zip.compressed_size().min(file_bytes).saturating_mul(MAX_EXPANSION));
        let mut entry = Entry::open(path, zip)?;
        let (header, start) = read_header(&mut entry)?;
        let (dtype, dims) = (header.dtype, &header.dims);
        let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let size = count.and_then(|n| dtype.bytes_for(n));
        let size = size.filter(|&s| s as u64 <= most.saturating_sub(start as u64)).ok_or_else(|| {
            Error::data(format!("its header promises shape {dims:?} of {dtype}, which is more than the file holds"))
        })?;
        Ok(Self { header, size, entry })
    }

    /// All elements, row-major.
    pub fn read(mut self) -> Result<Tensor> {
        let mut data = self.take(self.size)?;
        self.finish()?;
        let Header { dtype, dims, fortran } = self.header;
        if fortran && dims.len() > 1 {
            data = row_major(&data, &dims, dtype.bits() / 8);
        }
        Ok(Tensor::raw(dtype, &dims, data))
    }

    /// The elements row by row. The caller checked that the rank is at least 1.
    pub fn rows(self) -> Result<Rows> {
        if self.header.fortran && self.header.dims.len() > 1 {
            return self.read().map(Rows::Whole);
        }
        let left = self.header.dims.first().copied().unwrap_or(0);
        Ok(Rows::Stored { elements: self, left })
    }

    fn take(&mut self, size: usize) -> Result<Vec<u8>> {
        let mut data = Vec::with_capacity(size);
        let read = (&mut self.entry).take(size as u64).read_to_end(&mut data).map_err(|e| damaged(&e))?;
        if read == size { Ok(data) } else { Err(self.other_size()) }
    }

    /// Looks for the end, where the checksum is checked.
    fn finish(&mut self) -> Result<()> {
        match self.entry.read(&mut [0]).map_err(|e| damaged(&e))? {
            0 => Ok(()),
            _ => Err(self.other_size()),
        }
    }

    fn other_size(&self) -> Error {
        let (Header { dtype, dims, .. }, size) = (&self.header, self.size);
        Error::data(format!("shape {dims:?} of {dtype} needs {size} bytes, the file has a different number"))
    }
}

impl Rows {
    /// Number of rows not read yet.
    pub fn left(&self) -> usize {
        match self {
            Self::Stored { left, .. } => *left,
            Self::Whole(rest) => rest.dims.first().copied().unwrap_or(0),
        }
    }

    /// The next `count` rows. The checksum is checked with the last row.
    pub fn next(&mut self, count: usize) -> Result<Tensor> {
        let have = self.left();
        if count > have {
            return Err(Error::internal(format!("{count} rows of the {have} that are left")));
        }
        match self {
            Self::Stored { elements, left } => {
                let mut dims = elements.header.dims.clone();
                let row = elements.size.checked_div(dims[0]).unwrap_or(0);
                dims[0] = count;
                let data = elements.take(count * row)?;
                *left -= count;
                if *left == 0 {
                    elements.finish()?;
                }
                Ok(Tensor::raw(elements.header.dtype, &dims, data))
            }
            Self::Whole(rest) => {
                let rows = super::rows(rest, 0..count)?;
                *rest = super::rows(rest, count..have)?;
                Ok(rows)
            }
        }
    }
}

impl Entry {
    fn open(path: &Path, zip: &ZipFile) -> Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(zip.data_start()))?;
        let compressed = BufReader::new(file).take(zip.compressed_size());
        let inflated: Box<dyn Read + Send> = match zip.compression() {
            CompressionMethod::Stored => Box::new(compressed),
            CompressionMethod::Deflated => Box::new(DeflateDecoder::new(compressed)),
            other => return Err(damaged(&format!("it is compressed with {other}, not with deflate"))),
        };
        Ok(Self { inflated, crc: Crc::new(), want: zip.crc32() })
    }
}

impl Read for Entry {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inflated.read(buf)?;
        if n == 0 && !buf.is_empty() && self.crc.sum() != self.want {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "its checksum does not match its data"));
        }
        self.crc.update(&buf[..n]);
        Ok(n)
    }
}
