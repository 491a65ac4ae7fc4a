//! DequantizeLinear, of the standard and of ONNX Runtime.

use crate::error::{Error, Result};
use crate::ir::{DType, Dim};
use crate::ops::axes::{AxisLinks, LinkContext, elementwise_links, input};
use crate::ops::rules::{axis, int, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, contrib, op};

/// Integer to float: `(x - zero_point) * scale`.
pub struct DequantizeLinear;

impl OpSpec for DequantizeLinear {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("DequantizeLinear", &[10, 13, 19, 21, 23, 24, 25]).f16(19), contrib("DequantizeLinear")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let elem = match int(cx, "output_dtype", 0)? {
            0 => cx.elem(1),
            code => {
                let dtype = i32::try_from(code).ok().and_then(DType::from_onnx);
                Some(dtype.ok_or_else(|| Error::invalid("attribute \"output_dtype\" is no element type"))?)
            }
        };
        output(elem, cx.shape(0).map(<[Dim]>::to_vec))
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        scale_links(cx)
    }
}

/// One scale (and zero point) for all, or one per element of an axis. Blocked ones are tied in blocks: opaque.
pub fn scale_links(cx: &LinkContext) -> Option<AxisLinks> {
    let mut links = elementwise_links(cx, 0)?;
    let rank = cx.rank(0)?;
    for slot in (1..3).filter(|&slot| cx.cx.present(slot)) {
        match cx.cx.shape(slot)? {
            [] => {}
            [Dim::Known(1)] => links.free(input(slot, 0)),
            [_] => {
                let at = axis(int(cx.cx, "axis", 1).ok()?, rank).ok()?;
                links.same(input(slot, 0), input(0, at));
            }
            _ => return None,
        }
    }
    Some(links)
}
