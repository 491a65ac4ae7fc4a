//! EmbedLayerNormalization of ONNX Runtime.

use crate::error::Result;
use crate::ir::DType;
use crate::ops::rules::size;
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, contrib};

/// Sum of embeddings, normalized: `[batch, steps, width]`, and one mask index per row of the batch.
pub struct EmbedLayerNormalization;

impl OpSpec for EmbedLayerNormalization {
    fn schemas(&self) -> &'static [Schema] {
        &const { [contrib("EmbedLayerNormalization")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let (batch, steps, width) = (size(cx, 0, 0), size(cx, 0, 1), size(cx, 2, 1));
        let embedded = Inferred::tensor(cx.elem(2), Some(vec![batch.clone(), steps, width]));
        let index = Inferred::tensor(Some(DType::I32), Some(vec![batch]));
        Ok(vec![embedded.clone(), index, embedded])
    }
}
