//! NumPy's `.npz`: a zip of `.npy` arrays (NEP 1: magic, version, a Python dict literal, the elements).
//!
//! Arrays are inflated from front to back, as many rows at a time as are asked for.

mod elements;

use super::files::write_with;
use crate::error::{Context, Error, Result};
use crate::ir::{DType, Tensor, TensorData};
use bytes::Bytes;
pub(super) use elements::{Elements, Rows};
use npyz::zip::result::ZipError;
use npyz::zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter, write::FileOptions};
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header that is read: NumPy's own limit for untrusted files is 10,000.
const MAX_HEADER: usize = 1 << 16;

/// (NumPy type, ours)
const TYPES: &[(&str, DType)] = &[
    ("f4", DType::F32),
    ("f8", DType::F64),
    ("f2", DType::F16),
    ("i1", DType::I8),
    ("i2", DType::I16),
    ("i4", DType::I32),
    ("i8", DType::I64),
    ("u1", DType::U8),
    ("u2", DType::U16),
    ("u4", DType::U32),
    ("u8", DType::U64),
    ("b1", DType::Bool),
    ("c8", DType::C64),
    ("c16", DType::C128),
];

/// An open `.npz`.
pub(super) struct Npz {
    path: PathBuf,
    bytes: u64,
    archive: ZipArchive<BufReader<File>>,
}

/// Type and shape of a stored array.
#[derive(Debug, PartialEq)]
pub(super) struct Header {
    pub dtype: DType,
    pub dims: Vec<usize>,
    fortran: bool,
}

impl Npz {
    /// Opens the archive and reads its directory only.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(Error::data("it is a folder, expected an .npz file"));
        }
        let archive = ZipArchive::new(BufReader::new(file)).map_err(|e| damaged(&e))?;
        Ok(Self { path: path.to_path_buf(), bytes: metadata.len(), archive })
    }

    /// Names of the arrays, sorted.
    pub fn names(&self) -> Vec<String> {
        let names = self.archive.file_names().filter_map(npyz::npz::array_name_from_file_name);
        let mut names: Vec<String> = names.map(String::from).collect();
        names.sort();
        names
    }

    /// Type and shape of an array; `None` where there is none of this name. Inflates only the header.
    pub fn header(&mut self, name: &str) -> Result<Option<Header>> {
        Ok(self.elements(name)?.map(|e| e.header))
    }

    /// An array, row-major; `None` where there is none of this name.
    pub fn array(&mut self, name: &str) -> Result<Option<Tensor>> {
        let Some(elements) = self.elements(name)? else { return Ok(None) };
        elements.read().map(Some).context(|| format!("array \"{name}\""))
    }

    /// A reader of its own for an array; `None` where there is none of this name. Inflates only the header.
    pub fn elements(&mut self, name: &str) -> Result<Option<Elements>> {
        let place = || format!("array \"{name}\"");
        let entry = match self.archive.by_name(&npyz::npz::file_name_from_array_name(name)) {
            Ok(entry) => entry,
            Err(ZipError::FileNotFound) => return Ok(None),
            Err(e) => return Err(damaged(&e)).context(place),
        };
        Elements::open(&self.path, self.bytes, &entry).map(Some).context(place)
    }
}

fn damaged(e: &dyn std::fmt::Display) -> Error {
    Error::data(format!("not a readable .npz file: {e}"))
}

/// Reads up to the first element; returns the number of bytes that took.
fn read_header(file: &mut dyn Read) -> Result<(Header, usize)> {
    let short = |e: std::io::Error| Error::data(format!("not a readable .npy array: {e}"));
    let mut fixed = [0u8; 8];
    file.read_exact(&mut fixed).map_err(short)?;
    if &fixed[..6] != MAGIC {
        return Err(Error::data("not an .npy array: it does not start with the NUMPY magic"));
    }
    let mut length = [0u8; 4];
    let width = if fixed[6] == 1 { 2 } else { 4 };
    file.read_exact(&mut length[..width]).map_err(short)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_HEADER {
        return Err(Error::data(format!("its .npy header of {length} bytes is too long")));
    }
    let mut text = vec![0u8; length];
    file.read_exact(&mut text).map_err(short)?;
    let header = parse_header(&String::from_utf8_lossy(&text))?;
    Ok((header, 8 + width + length))
}

/// Parses `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn parse_header(text: &str) -> Result<Header> {
    let bad = || Error::data(format!("unreadable .npy header {:?}", text.trim()));
    let after = |key: &str| -> Result<&str> {
        let at = text.find(key).ok_or_else(bad)?;
        let rest = text[at + key.len()..].trim_start();
        Ok(rest.strip_prefix(':').ok_or_else(bad)?.trim_start())
    };
    let descr = after("'descr'")?;
    let descr = match descr.strip_prefix('\'').and_then(|d| d.split_once('\'')) {
        Some((d, _)) => d,
        None => return Err(Error::data("its elements are records; only plain numbers can be fed")),
    };
    let dtype = parse_descr(descr)?;
    let fortran = after("'fortran_order'")?.starts_with("True");
    let shape = after("'shape'")?.strip_prefix('(').and_then(|s| s.split_once(')')).ok_or_else(bad)?.0;
    let dims = shape.split(',').map(str::trim).filter(|d| !d.is_empty());
    let dims: Option<Vec<usize>> = dims.map(|d| d.trim_end_matches('L').parse().ok()).collect();
    Ok(Header { dtype, dims: dims.ok_or_else(bad)?, fortran })
}

fn parse_descr(descr: &str) -> Result<DType> {
    let (order, kind) = match descr.as_bytes().first() {
        Some(b'<' | b'>' | b'|' | b'=') => descr.split_at(1),
        _ => ("", descr),
    };
    if kind.starts_with('O') {
        return Err(Error::data("it holds pickled Python objects, which are never loaded"));
    }
    let found = TYPES.iter().find(|(name, _)| *name == kind).map(|(_, t)| *t);
    let dtype = found.ok_or_else(|| Error::data(format!("element type '{descr}' cannot be fed to a model")))?;
    if order == ">" && dtype.bits() > 8 {
        let fix = "save it with x.astype(x.dtype.newbyteorder('<'))";
        return Err(Error::data(format!("it is big-endian ('{descr}'); {fix}")));
    }
    Ok(dtype)
}

/// Reorders column-major elements of `size` bytes.
fn row_major(data: &[u8], dims: &[usize], size: usize) -> Vec<u8> {
    let strides: Vec<usize> = dims.iter().scan(1, |s, &d| Some(std::mem::replace(s, *s * d))).collect();
    let mut out = Vec::with_capacity(data.len());
    let mut index = vec![0usize; dims.len()];
    let mut from = 0usize;
    for _ in 0..data.len() / size {
        out.extend_from_slice(&data[from * size..(from + 1) * size]);
        for axis in (0..dims.len()).rev() {
            index[axis] += 1;
            from += strides[axis];
            if index[axis] < dims[axis] {
                break;
            }
            from -= strides[axis] * dims[axis];
            index[axis] = 0;
        }
    }
    out
}

/// Reads every array of an `.npz`, by name.
///
/// # Errors
/// One line that names the file and the array: unreadable, damaged, big-endian, pickled or structured elements.
pub fn read_npz(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let place = || path.display().to_string();
    let mut npz = Npz::open(path).context(place)?;
    let mut out = vec![];
    for name in npz.names() {
        if let Some(t) = npz.array(&name).context(place)? {
            out.push((name, t));
        }
    }
    Ok(out)
}

/// Writes arrays to an uncompressed `.npz`, atomically. The bytes depend on nothing but the arrays.
///
/// # Errors
/// An unwritable target; a tensor whose type NumPy lacks (bfloat16, float8, 4 bits, strings), named.
pub fn write_npz(path: &Path, arrays: &[(String, Tensor)]) -> Result<()> {
    // The zip writer seeks back to fill in sizes and checksums, so it gets a seekable buffer per array.
    let mut zip = ZipWriter::new(Cursor::new(vec![]));
    for (name, tensor) in arrays {
        write_array(&mut zip, name, tensor).context(|| format!("array \"{name}\""))?;
    }
    let bytes = zip.finish().map_err(|e| Error::Io(e.into()))?.into_inner();
    write_with(path, |w| Ok(w.write_all(&bytes)?))
}

fn write_array(zip: &mut ZipWriter<Cursor<Vec<u8>>>, name: &str, tensor: &Tensor) -> Result<()> {
    let dtype = tensor.dtype;
    let kind = TYPES.iter().find(|(_, t)| *t == dtype && !matches!(tensor.data, TensorData::Strings(_)));
    let kind = kind.ok_or_else(|| Error::unsupported(format!("NumPy has no element type {dtype}")))?.0;
    let order = if dtype.bits() > 8 { '<' } else { '|' };
    let dims: String = tensor.dims.iter().map(|d| format!("{d}, ")).collect();
    let dims = if tensor.rank() == 1 { dims.trim_end() } else { dims.trim_end_matches(", ") };
    let mut header = format!("{{'descr': '{order}{kind}', 'fortran_order': False, 'shape': ({dims}), }}");
    // NEP 1: padded with spaces so that the elements start at a multiple of 64 bytes, ending in a newline.
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.push_str(&" ".repeat(length - header.len() - 1));
    header.push('\n');
    let data = tensor.bytes()?;
    let options = FileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .large_file(data.len() > 0xf000_0000);
    zip.start_file(npyz::npz::file_name_from_array_name(name), options).map_err(|e| Error::Io(e.into()))?;
    zip.write_all(MAGIC)?;
    zip.write_all(&[1, 0])?;
    zip.write_all(&(length as u16).to_le_bytes())?;
    zip.write_all(header.as_bytes())?;
    Ok(zip.write_all(&data)?)
}

/// Rows `range` of a row-major tensor, sharing its bytes. The caller checked that the rank is at least 1.
fn rows(t: &Tensor, range: std::ops::Range<usize>) -> Result<Tensor> {
    let TensorData::Raw(bytes) = &t.data else { return Err(Error::internal("rows of a tensor that is not raw")) };
    let total = t.dims.first().copied().unwrap_or(0);
    if range.end > total || range.start > range.end {
        return Err(Error::internal(format!("rows {range:?} of {total}")));
    }
    let row = bytes.len().checked_div(total).unwrap_or(0);
    let mut dims = t.dims.clone();
    dims[0] = range.len();
    let slice: Bytes = bytes.slice(range.start * row..range.end * row);
    Ok(Tensor::raw(t.dtype, &dims, slice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_numpy_are_understood() {
        let parse = |s: &str| parse_header(s).map_err(|e| e.to_string());
        let h = parse("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }  \n").unwrap();
        assert_eq!((h.dtype, h.dims, h.fortran), (DType::F32, vec![3, 4], false));
        let h = parse("{'descr': '|b1', 'fortran_order': True, 'shape': (), }").unwrap();
        assert_eq!((h.dtype, h.dims.len(), h.fortran), (DType::Bool, 0, true));
        assert_eq!(parse("{'descr': '<i8', 'fortran_order': False, 'shape': (7L,), }").unwrap().dims, [7]);
        let refused =
            [("'>f4'", "big-endian"), ("'|O'", "pickled"), ("'<U3'", "cannot be fed"), ("[('a', '<f4')]", "records")];
        for (descr, want) in refused {
            let e = parse(&format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (1,), }}")).unwrap_err();
            assert!(e.contains(want), "{e}");
        }
        for text in ["", "{}", "{'descr': '<f4'}", "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn column_major_becomes_row_major() {
        // [[0, 1, 2], [3, 4, 5]] in column-major order.
        assert_eq!(row_major(&[0, 3, 1, 4, 2, 5], &[2, 3], 1), [0, 1, 2, 3, 4, 5]);
        assert_eq!(row_major(&[0, 0, 2, 2, 1, 1, 3, 3], &[2, 1, 2], 2), [0, 0, 1, 1, 2, 2, 3, 3]);
        assert!(row_major(&[], &[0, 3], 4).is_empty());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        let arrays = [
            ("scalar".to_string(), Tensor::from_i64(&[], &[-3])),
            ("a/b.c".into(), Tensor::from_f32(&[2, 0, 3], &[])),
            ("v".into(), Tensor::from_u8(&[3], &[1, 2, 3])),
            ("m".into(), Tensor::from_f64(&[2, 2], &[1.0, f64::NAN, -0.0, 4.0])),
        ];
        write_npz(&path, &arrays).unwrap();
        let first = std::fs::read(&path).unwrap();
        let mut back = read_npz(&path).unwrap();
        back.sort_by_key(|(n, _)| arrays.iter().position(|(m, _)| m == n));
        assert_eq!(back, arrays);
        write_npz(&path, &arrays).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first, "the bytes depend on the arrays alone");
        let strange = [("x".to_string(), Tensor::raw(DType::BF16, &[1], vec![0u8, 0]))];
        assert!(write_npz(&path, &strange).unwrap_err().to_string().contains("bfloat16"));
        assert_eq!(std::fs::read(&path).unwrap(), first, "a failure leaves the target alone");
    }
}
