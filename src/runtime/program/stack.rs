//! What the iterations of a loop yield, as one tensor.

use super::super::tensor::{datum_type, tract_error};
use super::tensor_bytes;
use crate::error::{Error, Result};
use crate::ir::Type;
use tract_onnx::prelude::{IntoTValue, TValue, Tensor};

/// Collects tensors of one shape and stacks them along a new axis.
pub(super) struct Stack {
    tensors: Vec<TValue>,
    /// Of the new axis, in the result; from its end where negative.
    axis: i64,
    /// Whether the last one comes first.
    reverse: bool,
    bytes: usize,
}

impl Stack {
    pub(super) fn new(axis: i64, reverse: bool) -> Self {
        Self { tensors: vec![], axis, reverse, bytes: 0 }
    }

    /// Memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds what one iteration yields.
    ///
    /// # Errors
    /// Another shape or type than that of the iterations before.
    pub(super) fn push(&mut self, t: TValue) -> Result<()> {
        if let Some(first) = self.tensors.first()
            && (first.shape() != t.shape() || first.datum_type() != t.datum_type())
        {
            let (a, b) = ((first.datum_type(), first.shape()), (t.datum_type(), t.shape()));
            return Err(Error::invalid(format!(
                "a scan output is {:?}{:?}, but was {:?}{:?} before",
                b.0, b.1, a.0, a.1
            )));
        }
        self.bytes = self.bytes.saturating_add(tensor_bytes(&t));
        self.tensors.push(t);
        Ok(())
    }

    /// The tensor. `ty` is the declared type of one element: without iterations it is all that is known, and dimensions
    /// that it leaves open are then 0, as in ONNX Runtime.
    pub(super) fn finish(mut self, ty: Option<&Type>) -> Result<TValue> {
        let Some(first) = self.tensors.first() else { return self.nothing(ty) };
        let axis = normalized(self.axis, first.rank() + 1)?;
        if self.reverse {
            self.tensors.reverse();
        }
        stacked(&self.tensors, axis)
    }

    fn nothing(&self, ty: Option<&Type>) -> Result<TValue> {
        let tensor = ty.and_then(Type::as_tensor);
        let dtype = tensor.and_then(|t| datum_type(t.elem));
        let dtype = dtype.ok_or_else(|| Error::unsupported("no iterations, and a scan output of no declared type"))?;
        let shape = tensor.and_then(|t| t.shape.as_deref()).unwrap_or(&[]);
        let mut dims: Vec<usize> = shape.iter().map(|d| d.known().unwrap_or(0)).collect();
        dims.insert(normalized(self.axis, dims.len() + 1)?, 0);
        Ok(Tensor::zero_dt(dtype, &dims).map_err(tract_error)?.into_tvalue())
    }
}

/// Tensors of one shape stacked along a new axis.
pub(super) fn stacked(tensors: &[TValue], axis: usize) -> Result<TValue> {
    let widen = |t: &TValue| {
        let mut t = (**t).clone();
        t.insert_axis(axis).map_err(tract_error)?;
        Ok(t)
    };
    let widened: Vec<Tensor> = tensors.iter().map(widen).collect::<Result<_>>()?;
    Ok(Tensor::stack_tensors(axis, &widened).map_err(tract_error)?.into_tvalue())
}

/// The part of `t` at `index` along `axis`, without that axis.
pub(super) fn at(t: &TValue, axis: usize, index: usize) -> Result<TValue> {
    let mut part = t.slice(axis, index, index + 1).map_err(tract_error)?;
    part.remove_axis(axis).map_err(tract_error)?;
    Ok(part.into_tvalue())
}

/// An axis that may count from the end.
pub(super) fn normalized(axis: i64, rank: usize) -> Result<usize> {
    let from_start = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    let found = from_start.and_then(|a| usize::try_from(a).ok()).filter(|&a| a < rank);
    found.ok_or_else(|| Error::invalid(format!("axis {axis} of a tensor of rank {rank}")))
}
