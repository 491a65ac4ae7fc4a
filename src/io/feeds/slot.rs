//! What a graph input takes, and whether data fit it.

use crate::error::{Error, Result};
use crate::ir::{DType, Dim, Graph, Tensor, Type};
use std::sync::Arc;

/// A required graph input.
#[derive(Debug)]
pub(super) struct Slot {
    pub name: Arc<str>,
    pub elem: Option<DType>,
    pub shape: Option<Vec<Dim>>,
    /// The data's sample axis is in front of all axes that the input has: the input takes one sample without that axis.
    pub adds_sample_axis: bool,
    /// From the second feed on it is an output of the feed before.
    pub carried: bool,
}

/// How many samples the model takes at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Batching {
    /// Any number.
    Free,
    /// Exactly this many.
    Fixed(usize),
    /// One complete feed at a time.
    Single,
}

/// The required inputs of a graph.
pub(super) fn required(graph: &Graph) -> Result<Vec<Slot>> {
    let slot = |v| {
        let name: Arc<str> = graph.name(v).into();
        let (elem, shape) = match graph.ty(v) {
            Some(Type::Tensor(t)) => (Some(t.elem), t.shape.clone()),
            Some(Type::Other(_)) => {
                return Err(Error::unsupported(format!("graph input \"{name}\" is not a tensor, it cannot be fed")));
            }
            None => (None, None),
        };
        Ok(Slot { name, elem, shape, adds_sample_axis: false, carried: false })
    };
    graph.required_inputs().map(slot).collect()
}

impl Batching {
    /// What the inputs' first axes allow.
    pub fn of(slots: &[Slot]) -> Result<Self> {
        let mut fixed: Option<(&str, usize)> = None;
        for slot in slots {
            let k = if slot.adds_sample_axis { Some(1) } else { slot.fixed_first() };
            let Some(k) = k else { continue };
            match fixed {
                Some((name, other)) if other != k => {
                    let this = &slot.name;
                    return Err(Error::data(format!(
                        "inputs \"{name}\" and \"{this}\" take {other} and {k} rows at once, so axis 0 cannot be the \
                         sample of both; use a folder of .npz files, each one a complete feed"
                    )));
                }
                _ => fixed = Some((&slot.name, k)),
            }
        }
        match fixed {
            Some((name, 0)) => Err(Error::data(format!("input \"{name}\" takes 0 samples at once"))),
            Some((_, k)) => Ok(Self::Fixed(k)),
            None => Ok(Self::Free),
        }
    }

    /// The number of samples, where the model fixes it.
    pub fn fixed(self) -> Option<usize> {
        match self {
            Self::Fixed(k) => Some(k),
            Self::Free | Self::Single => None,
        }
    }

    /// Samples of one feed where the user would like `wanted`.
    pub fn size(self, wanted: usize) -> usize {
        match self {
            Self::Free => wanted,
            Self::Fixed(k) => k,
            Self::Single => 1,
        }
    }
}

impl Slot {
    /// The first axis, where it has a fixed size.
    fn fixed_first(&self) -> Option<usize> {
        self.shape.as_ref()?.first()?.known()
    }

    /// Checks an array of samples (axis 0 = sample), and finds out whether that axis is one that the input has too.
    pub fn check_samples(&mut self, dtype: DType, dims: &[usize]) -> Result<()> {
        self.check_type(dtype)?;
        if dims.is_empty() {
            return Err(self.mismatch(dims, "axis 0 must be the sample"));
        }
        let Some(shape) = &self.shape else { return Ok(()) };
        self.adds_sample_axis = dims.len() == shape.len() + 1;
        if self.adds_sample_axis {
            return self.check_dims(shape, &dims[1..], dims);
        }
        if dims.len() != shape.len() {
            return Err(self.mismatch(dims, "the ranks differ"));
        }
        self.check_dims(&shape[1..], &dims[1..], dims)
    }

    /// Checks an array that is fed as it is.
    pub fn check_feed(&self, dtype: DType, dims: &[usize]) -> Result<()> {
        self.check_type(dtype)?;
        let Some(shape) = &self.shape else { return Ok(()) };
        if dims.len() != shape.len() {
            return Err(self.mismatch(dims, "the ranks differ"));
        }
        self.check_dims(shape, dims, dims)
    }

    fn check_type(&self, dtype: DType) -> Result<()> {
        let Some(elem) = self.elem.filter(|&e| e != dtype) else { return Ok(()) };
        let name = &self.name;
        let numpy = match elem {
            DType::F32 => "float32",
            DType::F64 => "float64",
            other => other.name(),
        };
        Err(Error::data(format!(
            "array \"{name}\" holds {dtype}, the graph input takes {elem}; save it with x.astype(np.{numpy})"
        )))
    }

    fn check_dims(&self, shape: &[Dim], dims: &[usize], whole: &[usize]) -> Result<()> {
        let wrong = shape.iter().zip(dims).find(|(s, d)| s.known().is_some_and(|k| k != **d));
        match wrong {
            Some((s, d)) => Err(self.mismatch(whole, &format!("{d} where {s} is fixed"))),
            None => Ok(()),
        }
    }

    fn mismatch(&self, dims: &[usize], why: &str) -> Error {
        let name = &self.name;
        let shape: Vec<String> = self.shape.iter().flatten().map(Dim::to_string).collect();
        let shape = shape.join(", ");
        Error::data(format!("array \"{name}\" has shape {dims:?}, the graph input takes [{shape}]: {why}"))
    }

    /// Refuses NaN and infinity; `first`: axis 0 is the sample, its first row this one, and the message names it.
    pub fn check_finite(&self, t: &Tensor, first: Option<usize>) -> Result<()> {
        let bytes = t.bytes()?;
        let Some(at) = first_not_finite(t.dtype, &bytes) else { return Ok(()) };
        let name = &self.name;
        if let Some(first) = first {
            let row = t.len() / t.dims.first().copied().unwrap_or(1).max(1);
            let sample = first + at / row.max(1);
            return Err(Error::data(format!("array \"{name}\" holds NaN or infinity in sample {sample}")));
        }
        Err(Error::data(format!("array \"{name}\" holds NaN or infinity at element {at}")))
    }
}

/// Position of the first NaN or infinity: all exponent bits set.
fn first_not_finite(dtype: DType, bytes: &[u8]) -> Option<usize> {
    let u16s = |mask: u16| bytes.as_chunks::<2>().0.iter().position(|&x| u16::from_le_bytes(x) & mask == mask);
    match dtype {
        DType::F32 => bytes.as_chunks::<4>().0.iter().position(|&x| u32::from_le_bytes(x) & 0x7f80_0000 == 0x7f80_0000),
        DType::F64 => {
            let mask = 0x7ff0_0000_0000_0000;
            bytes.as_chunks::<8>().0.iter().position(|&x| u64::from_le_bytes(x) & mask == mask)
        }
        DType::F16 => u16s(0x7c00),
        DType::BF16 => u16s(0x7f80),
        _ => None,
    }
}
