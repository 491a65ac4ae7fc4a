//! From half precision to single precision.

use super::super::custom::{Fact, Kernel};
use super::layout::required;
use tract_onnx::tract_hir::internal::*;

/// f16 as f32, and every other type as it is.
#[derive(Debug)]
pub(super) struct Widen;

impl Kernel for Widen {
    fn name(&self) -> &'static str {
        super::WIDEN
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let x = required(inputs, 0)?;
        let dtype = if x.dtype == DatumType::F16 { DatumType::F32 } else { x.dtype };
        Ok(tvec![Fact::new(dtype, x.shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        Ok(tvec![if x.datum_type() == DatumType::F16 { x.cast_to::<f32>()?.into_owned() } else { x.clone() }])
    }
}
