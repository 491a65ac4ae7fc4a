//! Made-up feeds that look for differences between two models: signs, zeros, large values, odd sizes.

use super::Feed;
use super::random::{self, MOST_BYTES, Stream};
use super::slot::{self, Slot};
use crate::error::{Error, Result};
use crate::ir::{DType, Dim, Graph, Tensor};
use std::collections::HashMap;
use std::sync::Arc;

/// One made-up feed.
pub struct Probe {
    /// What is special about it, for reports.
    pub what: &'static str,
    /// The inputs.
    pub feed: Feed,
}

/// What the elements are.
#[derive(Clone, Copy)]
enum Values {
    /// Standard normal; integers 0 or 1.
    Normal,
    /// Zeros.
    Zeros,
    /// Standard normal times 100; integers 0 to 9.
    Large,
    /// Minus the absolute value of a normal number; integers -2 to 1.
    Negative,
}

/// Sizes of the axes that the model leaves open.
#[derive(Clone, Copy)]
enum Sizes {
    /// 2 for a first axis, the caller's choice for others.
    Usual,
    /// 1.
    One,
    /// 3, 5, 7, ...: each name another.
    Odd,
}

/// Feeds that between them have negative, zero and large values and odd sizes of the dimensions that are not fixed.
/// `usual` is the size of an axis that is not the first and that the graph leaves open, where nothing special is tried.
///
/// # Errors
/// An input of unknown type or rank, or of a type that cannot be made up, or one that is too large.
pub fn probes(graph: &Graph, usual: usize) -> Result<Vec<Probe>> {
    let slots = slot::required(graph)?;
    if slots.is_empty() {
        return Ok(vec![Probe { what: "no input", feed: Feed::new() }]);
    }
    random::check(&slots)?;
    let open = slots.iter().flat_map(|s| s.shape.iter().flatten()).any(|d| d.known().is_none());
    let mut plan = vec![
        ("normal values", Values::Normal, Sizes::Usual),
        ("zeros", Values::Zeros, Sizes::Usual),
        ("large values", Values::Large, Sizes::Usual),
        ("negative values", Values::Negative, Sizes::Usual),
    ];
    if open {
        plan.push(("sizes of 1", Values::Normal, Sizes::One));
        plan.push(("odd sizes", Values::Normal, Sizes::Odd));
    }
    let probe = |(k, (what, values, sizes)): (usize, (&'static str, Values, Sizes))| {
        Ok(Probe { what, feed: feed(&slots, k as u64, values, sizes, usual)? })
    };
    plan.into_iter().enumerate().map(probe).collect()
}

fn feed(slots: &[Slot], seed: u64, values: Values, sizes: Sizes, usual: usize) -> Result<Feed> {
    let mut names: HashMap<Arc<str>, usize> = HashMap::new();
    let mut feed = Feed::new();
    for (k, slot) in slots.iter().enumerate() {
        let (Some(elem), Some(shape)) = (slot.elem, &slot.shape) else { continue };
        let mut dims = Vec::with_capacity(shape.len());
        for (axis, d) in shape.iter().enumerate() {
            dims.push(size(d, if axis == 0 { FIRST_SIZE } else { usual }, axis, sizes, &mut names));
        }
        let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let fits = |n: &usize| elem.bytes_for(*n).is_some_and(|b| b <= MOST_BYTES);
        let count = count.filter(fits).ok_or_else(|| {
            Error::data(format!("graph input \"{}\" of shape {dims:?} is too large to make up; give data", slot.name))
        })?;
        let mask = slot.name.to_lowercase().contains("mask");
        let mut stream = Stream::new(&[seed, k as u64]);
        let mut data = Vec::with_capacity(elem.bytes_for(count).unwrap_or(0));
        (0..count)
            .for_each(|_| element(&mut data, elem, if mask { Values::Normal } else { values }, mask, &mut stream));
        feed.insert(slot.name.to_string(), Tensor::raw(elem, &dims, data));
    }
    Ok(feed)
}

/// Size of a first axis that the graph leaves open.
const FIRST_SIZE: usize = 2;

fn size(d: &Dim, usual: usize, axis: usize, sizes: Sizes, names: &mut HashMap<Arc<str>, usize>) -> usize {
    match (d, sizes) {
        (Dim::Known(n), _) => usize::try_from(*n).unwrap_or(usual),
        (_, Sizes::One) => 1,
        (Dim::Unknown, Sizes::Usual) => usual,
        (Dim::Unknown, Sizes::Odd) => 3 + 2 * axis,
        (Dim::Sym(s), Sizes::Usual) => *names.entry(s.clone()).or_insert(usual),
        (Dim::Sym(s), Sizes::Odd) => {
            let next = 3 + 2 * names.len();
            *names.entry(s.clone()).or_insert(next)
        }
    }
}

fn element(out: &mut Vec<u8>, elem: DType, values: Values, mask: bool, stream: &mut Stream) {
    let normal = stream.normal();
    let bits = stream.next() >> 32;
    let real = match values {
        _ if mask => 1.0,
        Values::Normal => normal,
        Values::Zeros => 0.0,
        Values::Large => 100.0 * normal,
        Values::Negative => -normal.abs(),
    };
    let unsigned = matches!(elem, DType::U8 | DType::U16 | DType::U32 | DType::U64);
    let integer: i64 = match values {
        _ if mask => 1,
        Values::Normal => (bits & 1) as i64,
        Values::Zeros => 0,
        Values::Large => (bits % 10) as i64,
        Values::Negative if unsigned => (bits & 1) as i64,
        Values::Negative => (bits % 4) as i64 - 2,
    };
    match elem {
        DType::F32 => out.extend((real as f32).to_le_bytes()),
        DType::F64 => out.extend(real.to_le_bytes()),
        DType::F16 => out.extend(half::f16::from_f64(real).to_le_bytes()),
        DType::BF16 => out.extend(half::bf16::from_f64(real).to_le_bytes()),
        DType::Bool => out.push((integer & 1) as u8),
        _ => out.extend(&integer.to_le_bytes()[..elem.bits() / 8]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::text::parse_model;

    #[test]
    fn probes_cover_signs_zeros_and_sizes() {
        let text = "<ir_version: 8, opset_import: [\"\" : 17]> g (float[n, 4] x, int64[n, m] i, uint8[2] u) => (float[n, 4] y) {
            y = Relu (x) }";
        let model = parse_model(text).unwrap();
        let probes = probes(&model.graph, 16).unwrap();
        let dims = |k: usize, name: &str| probes[k].feed[name].dims.clone();
        assert_eq!((dims(0, "x"), dims(0, "i")), (vec![2, 4], vec![2, 16]));
        assert_eq!((dims(4, "x"), dims(4, "i")), (vec![1, 4], vec![1, 1]));
        assert_eq!((dims(5, "x"), dims(5, "i"), dims(5, "u")), (vec![3, 4], vec![3, 5], vec![2]));
        let floats = |k: usize| probes[k].feed["x"].to_f32().unwrap();
        assert!(floats(0).iter().any(|&x| x < 0.0) && floats(0).iter().any(|&x| x > 0.0));
        assert!(floats(1).iter().all(|&x| x == 0.0));
        assert!(floats(2).iter().any(|x| x.abs() > 50.0));
        assert!(floats(3).iter().all(|&x| x <= 0.0));
        assert!(probes[3].feed["i"].to_i64().unwrap().iter().any(|&x| x < 0));
    }
}
