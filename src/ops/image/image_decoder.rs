//! ImageDecoder.

use crate::error::Result;
use crate::ir::{DType, Dim};
use crate::ops::rules::{output, string};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Decodes a file: `[height, width, channels]`.
pub struct ImageDecoder;

impl OpSpec for ImageDecoder {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("ImageDecoder", &[20])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let channels = if string(cx, "pixel_format", "RGB")? == "Grayscale" { 1 } else { 3 };
        output(Some(DType::U8), Some(vec![Dim::Unknown, Dim::Unknown, Dim::Known(channels)]))
    }
}
