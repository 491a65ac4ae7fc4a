//! HannWindow, HammingWindow and BlackmanWindow.

use crate::error::Result;
use crate::ir::{DType, Dim};
use crate::ops::rules::{elem_attribute, output, single};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// A vector of as many weights as its input says.
pub struct SignalWindow;

impl OpSpec for SignalWindow {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("HannWindow", &[17]), op("HammingWindow", &[17]), op("BlackmanWindow", &[17])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let elem = elem_attribute(cx, "output_datatype")?.unwrap_or(DType::F32);
        let len = single(cx, 0).filter(|d| !matches!(d, Dim::Known(n) if *n < 0)).unwrap_or(Dim::Unknown);
        output(Some(elem), Some(vec![len]))
    }
}
