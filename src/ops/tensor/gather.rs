//! Gather.

use crate::error::Result;
use crate::ir::Dim;
use crate::ops::rules::{axis, int, is_f32, known_vector, output, vector};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Purpose, QuantRole, Schema, WeightRole, op};

/// Picks slices along an axis.
pub struct Gather;

impl OpSpec for Gather {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Gather", &[1, 11, 13])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let at = int(cx, "axis", 0)?;
        let Some(shape) = cx.shape(0) else { return output(cx.elem(0), None) };
        let at = axis(at, shape.len())?;
        let Some(indices) = cx.shape(1) else { return output(cx.elem(0), None) };
        let gathered = [&shape[..at], indices, &shape[at + 1..]].concat();
        let data = if shape.len() == 1 && indices.len() <= 1 { data(cx) } else { None };
        let mut out = output(cx.elem(0), Some(gathered))?;
        if let [inferred] = &mut out[..] {
            inferred.data = data;
        }
        Ok(out)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if is_f32(cx, 0) { QuantRole::PassThrough { input: 0 } } else { QuantRole::Opaque }
    }

    fn weight(&self, cx: &InferContext) -> Option<WeightRole> {
        let rows = cx.shape(0)?.len() == 2 && axis(int(cx, "axis", 0).ok()?, 2).ok()? == 0;
        let purpose = Purpose::Table { indices: 1 };
        rows.then_some(WeightRole { slot: 0, channel_axis: 0, block_axis: 1, purpose })
    }
}

fn data(cx: &InferContext) -> Option<Vec<Dim>> {
    let (data, indices) = (vector(cx, 0)?, known_vector(cx, 1)?);
    indices.into_iter().map(|i| data.get(axis(i, data.len()).ok()?).cloned()).collect()
}
