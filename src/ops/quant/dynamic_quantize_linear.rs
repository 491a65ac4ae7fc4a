//! DynamicQuantizeLinear.

use crate::error::Result;
use crate::ir::{DType, Dim};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Quantizes to uint8 with a scale and zero point computed from the data.
pub struct DynamicQuantizeLinear;

impl OpSpec for DynamicQuantizeLinear {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("DynamicQuantizeLinear", &[11]).no_f16()] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let scalar = |elem| Inferred::tensor(Some(elem), Some(vec![]));
        let quantized = Inferred::tensor(Some(DType::U8), cx.shape(0).map(<[Dim]>::to_vec));
        Ok(vec![quantized, scalar(DType::F32), scalar(DType::U8)])
    }
}
