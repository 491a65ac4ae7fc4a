//! Constant tensors: initializers and tensor attributes.

use super::DType;
use crate::error::{Error, Result};
use crate::proto;
use bytes::Bytes;
use std::borrow::Cow;
use std::sync::Arc;

/// A constant. Cloning never copies element data.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Element type.
    pub dtype: DType,
    /// Shape; empty for a scalar.
    pub dims: Vec<usize>,
    /// The elements, in whichever form the file had them.
    pub data: TensorData,
    /// Documentation and metadata of the `TensorProto`, kept as read; `None` where there is none.
    pub extra: Option<Arc<TensorExtra>>,
}

/// Where the elements of a [`Tensor`] are.
#[derive(Clone, Debug)]
pub enum TensorData {
    /// Little-endian elements, possibly unaligned, possibly aliasing the mapped file.
    Raw(Bytes),
    /// One of the typed repeated fields of a `TensorProto` (`float_data`, `int32_data`, ...); its other fields are unset.
    Typed(Arc<proto::TensorProto>),
    /// In another file; mapped and checked when the model is loaded.
    External(Arc<External>),
    /// A sparse constant: `values` at the linear or coordinate `indices` (specification: SparseTensorProto).
    Sparse(Arc<Sparse>),
    /// Strings.
    Strings(Arc<Vec<Vec<u8>>>),
}

/// A tensor whose elements are in a file of their own.
#[derive(Clone, Debug)]
pub struct External {
    /// `external_data` entries (location, offset, length, checksum), as read.
    pub entries: Vec<(String, String)>,
    /// The elements, aliasing the mapped file; `None` where the model was decoded without its folder.
    pub bytes: Option<Bytes>,
}

/// Parts of a sparse constant.
#[derive(Clone, Debug)]
pub struct Sparse {
    /// The `nnz` stored elements, rank 1.
    pub values: Tensor,
    /// `i64[nnz]` (linear) or `i64[nnz, rank]` (coordinates), sorted.
    pub indices: Tensor,
    /// The `TensorProto` name of `indices`, kept as read (that of `values` is the initializer's).
    pub indices_name: Option<String>,
}

/// What a `TensorProto` says beside its elements.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TensorExtra {
    /// Documentation.
    pub doc_string: Option<String>,
    /// Metadata.
    pub metadata_props: Vec<proto::StringStringEntryProto>,
    /// Name, where the tensor is an attribute's (an initializer's name is its value's).
    pub name: Option<String>,
    /// `data_location` where it is written out although the data are inline.
    pub data_location: Option<i32>,
    /// Whether `raw_data` was present but empty beside no elements (kept so that encoding gives an equal message).
    pub empty_raw: bool,
}

macro_rules! from_vec {
    ($name:ident, $t:ty, $dtype:expr, $doc:literal) => {
        #[doc = $doc]
        pub fn $name(dims: &[usize], data: &[$t]) -> Self {
            let raw: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
            Self::raw($dtype, dims, raw)
        }
    };
}

impl Tensor {
    /// A tensor from little-endian bytes.
    pub fn raw(dtype: DType, dims: &[usize], data: impl Into<Bytes>) -> Self {
        Self { dtype, dims: dims.to_vec(), data: TensorData::Raw(data.into()), extra: None }
    }

    from_vec!(from_f32, f32, DType::F32, "An f32 tensor.");
    from_vec!(from_f64, f64, DType::F64, "An f64 tensor.");
    from_vec!(from_i64, i64, DType::I64, "An i64 tensor.");
    from_vec!(from_i32, i32, DType::I32, "An i32 tensor.");
    from_vec!(from_i8, i8, DType::I8, "An i8 tensor.");
    from_vec!(from_u8, u8, DType::U8, "A u8 tensor.");

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rank.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Bytes that the elements take in the file that the tensor came from or goes to.
    pub fn stored_bytes(&self) -> usize {
        match &self.data {
            TensorData::Raw(b) => b.len(),
            TensorData::Sparse(s) => s.values.stored_bytes() + s.indices.stored_bytes(),
            TensorData::Strings(s) => s.iter().map(Vec::len).sum(),
            TensorData::Typed(_) | TensorData::External(_) => self.dtype.bytes_for(self.len()).unwrap_or(0),
        }
    }

    /// The elements as little-endian bytes (under 8 bits: packed), sparse ones densified.
    ///
    /// # Errors
    /// Strings, external data that were not loaded, and data whose length does not match the shape.
    pub fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        let bytes = match &self.data {
            TensorData::Raw(b) => Cow::Borrowed(b.as_ref()),
            TensorData::External(e) => match &e.bytes {
                Some(b) => Cow::Borrowed(b.as_ref()),
                None => return Err(Error::invalid("external data are not loaded")),
            },
            TensorData::Typed(p) => Cow::Owned(typed_bytes(self.dtype, p)?),
            TensorData::Sparse(s) => Cow::Owned(self.densified(s)?),
            TensorData::Strings(_) => return Err(Error::invalid("a string tensor has no numeric data")),
        };
        let want = self.dtype.bytes_for(self.len());
        if want != Some(bytes.len()) {
            let dims = &self.dims;
            return Err(Error::invalid(format!(
                "tensor of type {} and shape {dims:?} has {} bytes of data, expected {}",
                self.dtype,
                bytes.len(),
                want.map_or("more than fit in memory".into(), |n| n.to_string()),
            )));
        }
        Ok(bytes)
    }

    fn densified(&self, s: &Sparse) -> Result<Vec<u8>> {
        let size = self.dtype.bits() / 8;
        let total = self.dtype.bytes_for(self.len()).filter(|_| size > 0);
        let total = total.ok_or_else(|| Error::unsupported(format!("sparse tensors of {}", self.dtype)))?;
        let mut out = vec![0u8; total];
        let values = s.values.bytes()?;
        let indices = s.indices.to_i64()?;
        let linear = linear_indices(&self.dims, &s.indices.dims, &indices)?;
        if linear.len() != s.values.len() {
            return Err(Error::invalid("sparse tensor: values and indices differ in number"));
        }
        for (value, at) in values.chunks_exact(size).zip(linear) {
            let slot = out.get_mut(at * size..(at + 1) * size);
            slot.ok_or_else(|| Error::invalid("sparse tensor: index out of range"))?.copy_from_slice(value);
        }
        Ok(out)
    }

    /// Elements of a float tensor (f16, bf16, f32, f64) as f32.
    ///
    /// # Errors
    /// Any other type; see also [`Tensor::bytes`].
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let b = self.bytes()?;
        Ok(match self.dtype {
            DType::F32 => chunks::<4>(&b).map(f32::from_le_bytes).collect(),
            DType::F64 => chunks::<8>(&b).map(|x| f64::from_le_bytes(x) as f32).collect(),
            DType::F16 => chunks::<2>(&b).map(|x| half::f16::from_le_bytes(x).to_f32()).collect(),
            DType::BF16 => chunks::<2>(&b).map(|x| half::bf16::from_le_bytes(x).to_f32()).collect(),
            other => return Err(Error::invalid(format!("expected a float tensor, found {other}"))),
        })
    }

    /// Elements of an integer or bool tensor as i64; u64 above the range of i64 is an error.
    ///
    /// # Errors
    /// Any other type; see also [`Tensor::bytes`].
    pub fn to_i64(&self) -> Result<Vec<i64>> {
        let b = self.bytes()?;
        Ok(match self.dtype {
            DType::I64 => chunks::<8>(&b).map(i64::from_le_bytes).collect(),
            DType::I32 => chunks::<4>(&b).map(|x| i32::from_le_bytes(x).into()).collect(),
            DType::U32 => chunks::<4>(&b).map(|x| u32::from_le_bytes(x).into()).collect(),
            DType::I16 => chunks::<2>(&b).map(|x| i16::from_le_bytes(x).into()).collect(),
            DType::U16 => chunks::<2>(&b).map(|x| u16::from_le_bytes(x).into()).collect(),
            DType::I8 => b.iter().map(|&x| i64::from(x as i8)).collect(),
            DType::U8 | DType::Bool => b.iter().map(|&x| x.into()).collect(),
            DType::I4 | DType::U4 | DType::I2 | DType::U2 => self.few_bits(&b),
            DType::U64 => {
                let convert = |x| i64::try_from(u64::from_le_bytes(x));
                let all: std::result::Result<_, _> = chunks::<8>(&b).map(convert).collect();
                all.map_err(|_| Error::invalid("uint64 value above the range of int64"))?
            }
            other => return Err(Error::invalid(format!("expected an integer tensor, found {other}"))),
        })
    }

    /// Elements of 2 or 4 bits, of which a byte holds several, the first in its low bits.
    fn few_bits(&self, bytes: &[u8]) -> Vec<i64> {
        let bits = self.dtype.bits();
        let signed = matches!(self.dtype, DType::I4 | DType::I2);
        let one = |k: usize| {
            let code = i64::from(bytes[k * bits / 8] >> (k * bits % 8)) & ((1 << bits) - 1);
            if signed && code >> (bits - 1) == 1 { code - (1 << bits) } else { code }
        };
        (0..self.len().min(bytes.len() * 8 / bits)).map(one).collect()
    }

    /// The single element of a float tensor with one element.
    pub fn scalar_f32(&self) -> Option<f32> {
        if self.len() != 1 {
            return None;
        }
        self.to_f32().ok()?.first().copied()
    }

    /// The single element of an integer tensor with one element.
    pub fn scalar_i64(&self) -> Option<i64> {
        if self.len() != 1 {
            return None;
        }
        self.to_i64().ok()?.first().copied()
    }
}

/// Equal type, shape and elements, however stored; metadata do not count.
impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        if self.dtype != other.dtype || self.dims != other.dims {
            return false;
        }
        if let (TensorData::Strings(a), TensorData::Strings(b)) = (&self.data, &other.data) {
            return a == b;
        }
        matches!((self.bytes(), other.bytes()), (Ok(a), Ok(b)) if a == b)
    }
}

fn chunks<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.as_chunks::<N>().0.iter().copied()
}

/// Row-major positions of the stored elements of a sparse tensor of shape `dims`.
fn linear_indices(dims: &[usize], index_dims: &[usize], indices: &[i64]) -> Result<Vec<usize>> {
    let out_of_range = || Error::invalid("sparse tensor: index out of range");
    if index_dims.len() == 1 {
        return indices.iter().map(|&i| usize::try_from(i).map_err(|_| out_of_range())).collect();
    }
    if index_dims.len() != 2 || index_dims[1] != dims.len() {
        return Err(Error::invalid("sparse tensor: indices must have shape [nnz] or [nnz, rank]"));
    }
    if dims.is_empty() {
        return Ok(vec![0; index_dims[0]]);
    }
    let rows = indices.chunks_exact(dims.len());
    rows.map(|row| {
        row.iter().zip(dims).try_fold(0usize, |acc, (&i, &d)| {
            let i = usize::try_from(i).ok().filter(|&i| i < d).ok_or_else(out_of_range)?;
            Ok(acc * d + i)
        })
    })
    .collect()
}

/// Little-endian elements from the typed field that the specification assigns to `dtype`.
fn typed_bytes(dtype: DType, p: &proto::TensorProto) -> Result<Vec<u8>> {
    use DType::*;
    let (i, out) = (&p.int32_data, |v: Vec<u8>| Ok(v));
    match dtype {
        F32 | C64 => out(p.float_data.iter().flat_map(|x| x.to_le_bytes()).collect()),
        F64 | C128 => out(p.double_data.iter().flat_map(|x| x.to_le_bytes()).collect()),
        I64 => out(p.int64_data.iter().flat_map(|x| x.to_le_bytes()).collect()),
        U64 => out(p.uint64_data.iter().flat_map(|x| x.to_le_bytes()).collect()),
        U32 => out(p.uint64_data.iter().flat_map(|&x| (x as u32).to_le_bytes()).collect()),
        I32 => out(i.iter().flat_map(|x| x.to_le_bytes()).collect()),
        I16 | U16 | F16 | BF16 => out(i.iter().flat_map(|&x| (x as u16).to_le_bytes()).collect()),
        I8 | U8 | Bool | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 => {
            out(i.iter().map(|&x| x as u8).collect())
        }
        // Packed elements: each int32 holds one byte (specification: TensorProto.int32_data).
        I4 | U4 | F4E2M1 | I2 | U2 => out(i.iter().map(|&x| x as u8).collect()),
        String => Err(Error::invalid("a string tensor has no numeric data")),
    }
}
