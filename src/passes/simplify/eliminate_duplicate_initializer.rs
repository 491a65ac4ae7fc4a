//! Initializers with equal data become one.

use super::eliminate_common_subexpression::same_data;
use crate::error::Result;
use crate::io::peek;
use crate::ir::{DType, Graph, Tensor, TensorData, ValueId};
use crate::passes::{Effect, GraphRewrite, Patch, RuleContext};
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// Before: initializers `a` and `b` of equal type, shape and bytes. After: uses of `b` use `a`.
///
/// When: neither is a graph input (a caller could override one of them) and `b` is not a graph output.
/// Why it is equal: both are the same constant.
pub struct EliminateDuplicateInitializer;

/// Bytes from which the hash of a tensor is taken at most, spread over it: large weights are compared only where these
/// agree, so that a file of many gigabytes need not be read.
const SAMPLE_BYTES: usize = 4096;

impl GraphRewrite for EliminateDuplicateInitializer {
    fn name(&self) -> &'static str {
        "eliminate_duplicate_initializer"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn rewrite(&self, graph: &Graph, _: &RuleContext) -> Result<Vec<Patch>> {
        let mut seen: HashMap<u64, Vec<ValueId>> = HashMap::new();
        let mut patches = vec![];
        for v in graph.values() {
            let Some(t) = graph.constant(v) else { continue };
            let Some(key) = sampled(t) else { continue };
            let alike = seen.entry(key).or_default();
            let equal = |&&kept: &&ValueId| graph.constant(kept).is_some_and(|k| same_data(k, t));
            match alike.iter().find(equal) {
                Some(&kept) if !graph.is_output(v) => {
                    let mut patch = Patch::default();
                    patch.replace(v, kept);
                    patches.push(patch);
                }
                Some(_) => {}
                None => alike.push(v),
            }
        }
        Ok(patches)
    }
}

/// A hash of type, shape and some of the bytes; `None` for strings, sparse data and data that cannot be read.
fn sampled(t: &Tensor) -> Option<u64> {
    if t.dtype == DType::String || matches!(t.data, TensorData::Sparse(_)) {
        return None;
    }
    let bytes = t.bytes().ok()?;
    let mut h = DefaultHasher::new();
    (t.dtype.onnx(), &t.dims).hash(&mut h);
    if bytes.len() <= SAMPLE_BYTES {
        bytes.hash(&mut h);
    } else {
        // Both ends and the middle: few pages of a mapped file.
        let third = SAMPLE_BYTES / 3;
        let middle = bytes.len() / 2;
        for part in [&bytes[..third], &bytes[middle..middle + third], &bytes[bytes.len() - third..]] {
            peek(part).hash(&mut h);
        }
    }
    Some(h.finish())
}
