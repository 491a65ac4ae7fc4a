//! GatherBlockQuantized of ONNX Runtime.

use crate::error::Result;
use crate::ops::rules::{axis, int, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, contrib};

/// Picks slices of a weight of few bits in blocks and dequantizes them.
pub struct GatherBlockQuantized;

impl OpSpec for GatherBlockQuantized {
    fn schemas(&self) -> &'static [Schema] {
        &const { [contrib("GatherBlockQuantized")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        // In a tensor of bytes each one holds several elements of the last axis; the rule is that of plain ones.
        let plain = cx.elem(0).is_some_and(|t| t.bits() < 8);
        let (Some(shape), Some(indices), true) = (cx.shape(0), cx.shape(1), plain) else {
            return output(cx.elem(2), None);
        };
        let at = axis(int(cx, "gather_axis", 0)?, shape.len())?;
        output(cx.elem(2), Some([&shape[..at], indices, &shape[at + 1..]].concat()))
    }
}
