//! QuantizeLinear, of the standard and of ONNX Runtime.

use super::dequantize_linear::scale_links;
use crate::error::{Error, Result};
use crate::ir::{DType, Dim};
use crate::ops::axes::{AxisLinks, LinkContext};
use crate::ops::rules::{int, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, contrib, op};

/// Float to integer: `saturate(round(x / scale) + zero_point)`.
pub struct QuantizeLinear;

impl OpSpec for QuantizeLinear {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("QuantizeLinear", &[10, 13, 19, 21, 23, 24, 25]).f16(19), contrib("QuantizeLinear")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let requested = match int(cx, "output_dtype", 0)? {
            0 => None,
            code => {
                let dtype = i32::try_from(code).ok().and_then(DType::from_onnx);
                Some(dtype.ok_or_else(|| Error::invalid("attribute \"output_dtype\" is no element type"))?)
            }
        };
        let elem = match requested {
            Some(elem) => Some(elem),
            None if cx.present(2) => cx.elem(2),
            None => Some(DType::U8),
        };
        output(elem, cx.shape(0).map(<[Dim]>::to_vec))
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        scale_links(cx)
    }
}
