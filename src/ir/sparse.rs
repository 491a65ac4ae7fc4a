//! Sparse constants: only what is not zero, with its position.

use super::{Sparse, Tensor, TensorData};
use crate::error::Result;
use std::sync::Arc;

/// Bytes that the messages around values and indices of a sparse constant take beyond those of a dense one: two headers
/// with their fields, where a dense tensor has one. An upper bound, so that a sparse file is never the larger one.
const OVERHEAD: usize = 64;

impl Tensor {
    /// Number of elements with a bit set. `-0.0` is one of them: it must come back as it was.
    ///
    /// # Errors
    /// Strings and data that were not loaded.
    pub fn count_nonzero(&self) -> Result<usize> {
        let size = self.dtype.bits() / 8;
        let bytes = self.bytes()?;
        Ok(bytes.chunks_exact(size.max(1)).filter(|x| x.iter().any(|&b| b != 0)).count())
    }

    /// The constant with the elements alone that are not zero, at ascending linear positions (specification:
    /// SparseTensorProto), where that takes fewer bytes; `None` where it does not.
    ///
    /// # Errors
    /// Data that were not loaded, or do not fit the shape.
    pub fn sparse(&self) -> Result<Option<Self>> {
        let size = self.dtype.bits() / 8;
        let dense = matches!(self.data, TensorData::Raw(_) | TensorData::Typed(_) | TensorData::External(_));
        if !dense || size == 0 || !self.dtype.bits().is_multiple_of(8) || self.rank() == 0 || self.is_empty() {
            return Ok(None);
        }
        let nonzero = self.count_nonzero()?;
        // A tensor of nothing but zeros has no values, which readers differ on.
        if nonzero == 0 || nonzero * (size + 8) + OVERHEAD >= self.len() * size {
            return Ok(None);
        }
        let bytes = self.bytes()?;
        let (mut values, mut indices) = (Vec::with_capacity(nonzero * size), Vec::with_capacity(nonzero));
        for (k, x) in bytes.chunks_exact(size).enumerate().filter(|(_, x)| x.iter().any(|&b| b != 0)) {
            values.extend_from_slice(x);
            indices.push(k as i64);
        }
        let values = Self { extra: self.extra.clone(), ..Self::raw(self.dtype, &[nonzero], values) };
        let indices = Self::from_i64(&[nonzero], &indices);
        let data = TensorData::Sparse(Arc::new(Sparse { values, indices, indices_name: None }));
        Ok(Some(Self { dtype: self.dtype, dims: self.dims.clone(), data, extra: None }))
    }

    /// The constant with all of its elements; `None` where it has them already.
    ///
    /// # Errors
    /// Positions outside of the shape.
    pub fn densify(&self) -> Result<Option<Self>> {
        let TensorData::Sparse(s) = &self.data else { return Ok(None) };
        let bytes = self.bytes()?.into_owned();
        Ok(Some(Self { extra: s.values.extra.clone(), ..Self::raw(self.dtype, &self.dims, bytes) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_smaller_is_sparse_and_comes_back_bit_for_bit() {
        for (every, smaller) in [(1usize, false), (2, false), (4, true), (50, true)] {
            let mut data = vec![0f32; 1000];
            data.iter_mut().step_by(every).enumerate().for_each(|(k, x)| *x = if k == 0 { -0.0 } else { k as f32 });
            let t = Tensor::from_f32(&[10, 100], &data);
            let sparse = t.sparse().unwrap();
            assert_eq!(sparse.is_some(), smaller, "every {every}");
            let Some(sparse) = sparse else { continue };
            assert!(sparse.stored_bytes() < t.stored_bytes());
            let back = sparse.densify().unwrap().unwrap();
            assert_eq!(back.bytes().unwrap(), t.bytes().unwrap());
            assert!(back.densify().unwrap().is_none() && sparse.sparse().unwrap().is_none());
        }
    }

    #[test]
    fn positions_ascend() {
        let mut data = vec![0f32; 300];
        (data[7], data[299], data[31]) = (1.0, 2.0, 3.0);
        let sparse = Tensor::from_f32(&[3, 100], &data).sparse().unwrap().unwrap();
        let TensorData::Sparse(s) = &sparse.data else { panic!("dense") };
        assert_eq!(s.indices.to_i64().unwrap(), [7, 31, 299]);
        assert_eq!(s.values.to_f32().unwrap(), [1.0, 3.0, 2.0]);
    }

    #[test]
    fn scalars_empty_tensors_and_zeros_stay_dense() {
        for t in [Tensor::from_f32(&[], &[0.0]), Tensor::from_f32(&[0, 4], &[]), Tensor::from_f32(&[999], &[0.0; 999])]
        {
            assert!(t.sparse().unwrap().is_none());
        }
    }
}
