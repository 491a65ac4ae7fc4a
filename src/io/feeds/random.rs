//! Seeded random input, shaped by the graph.

use super::Feed;
use super::slot::{Batching, Slot};
use crate::error::{Error, Result};
use crate::ir::{DType, Dim, Tensor};
use std::collections::HashSet;
use std::ops::Range;

/// Size of an axis about which the graph says nothing.
const UNKNOWN_SIZE: usize = 16;
/// A made-up input of more bytes than this is refused.
pub(super) const MOST_BYTES: usize = 1 << 31;

/// Refuses inputs that cannot be made up.
pub(super) fn check(slots: &[Slot]) -> Result<()> {
    for slot in slots {
        let name = &slot.name;
        if slot.elem.is_none() || slot.shape.is_none() {
            return Err(Error::data(format!(
                "cannot make up graph input \"{name}\": the model does not declare its type and rank; give data"
            )));
        }
        if !slot.elem.is_some_and(can_make) {
            let elem = slot.elem.map_or("unknown", DType::name);
            return Err(Error::data(format!("cannot make up graph input \"{name}\" of type {elem}; give data")));
        }
    }
    Ok(())
}

fn can_make(t: DType) -> bool {
    t.is_float() || t == DType::Bool || (t.is_int() && t.bits() >= 8)
}

/// The feed of samples `range`.
pub(super) fn feed(slots: &[Slot], batching: Batching, seed: u64, range: Range<usize>) -> Result<Feed> {
    let firsts = slots.iter().filter_map(|s| s.shape.as_ref()?.first());
    let symbols: HashSet<&Dim> = firsts.filter(|d| matches!(d, Dim::Sym(_))).collect();
    let mut feed = Feed::new();
    for (k, slot) in slots.iter().enumerate() {
        let (Some(elem), Some(shape)) = (slot.elem, &slot.shape) else { continue };
        let size = |(axis, d): (usize, &Dim)| match d {
            Dim::Known(n) if axis > 0 || batching.fixed().is_none() => usize::try_from(*n).unwrap_or(UNKNOWN_SIZE),
            d if axis == 0 || symbols.contains(d) => range.len(),
            _ => UNKNOWN_SIZE,
        };
        let dims: Vec<usize> = shape.iter().enumerate().map(size).collect();
        let bytes = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).and_then(|n| elem.bytes_for(n));
        bytes.filter(|&b| b <= MOST_BYTES).ok_or_else(|| {
            Error::data(format!("graph input \"{}\" of shape {dims:?} is too large to make up; give data", slot.name))
        })?;
        let by_sample = dims.first() == Some(&range.len());
        let parts = if by_sample { range.clone() } else { range.start..range.start + 1 };
        let count = dims.iter().product::<usize>() / parts.len().max(1);
        let mask = slot.name.to_lowercase().contains("mask");
        let mut data = vec![];
        for sample in parts {
            let mut stream = Stream::new(&[seed, k as u64, sample as u64]);
            fill(&mut data, elem, count, mask, &mut stream);
        }
        feed.insert(slot.name.to_string(), Tensor::raw(elem, &dims, data));
    }
    Ok(feed)
}

fn fill(out: &mut Vec<u8>, elem: DType, count: usize, mask: bool, stream: &mut Stream) {
    for _ in 0..count {
        let bit = u8::from(mask || stream.next() >> 63 == 1);
        let mut real = || if mask { 1.0 } else { stream.normal() };
        match elem {
            DType::F32 => out.extend((real() as f32).to_le_bytes()),
            DType::F64 => out.extend(real().to_le_bytes()),
            DType::F16 => out.extend(half::f16::from_f64(real()).to_le_bytes()),
            DType::BF16 => out.extend(half::bf16::from_f64(real()).to_le_bytes()),
            _ => {
                out.push(bit);
                out.extend(std::iter::repeat_n(0, elem.bits() / 8 - 1));
            }
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): a stream is a function of its key alone.
pub(super) struct Stream(u64);

impl Stream {
    pub(super) fn new(key: &[u64]) -> Self {
        let mut s = Self(0);
        for &k in key {
            s.0 ^= k;
            s.0 = s.next();
        }
        s
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In (0, 1].
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller 1958).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}
