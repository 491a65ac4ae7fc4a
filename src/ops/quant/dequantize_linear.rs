//! DequantizeLinear, of the standard and of ONNX Runtime.

use crate::error::{Error, Result};
use crate::ir::{DType, Dim};
use crate::ops::rules::{int, output};
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
}
