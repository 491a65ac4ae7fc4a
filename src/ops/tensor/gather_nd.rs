//! GatherND.

use crate::error::{Error, Result};
use crate::ops::rules::{int, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Picks slices at the coordinates in the last axis of the indices.
pub struct GatherNd;

impl OpSpec for GatherNd {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("GatherND", &[11, 12, 13])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let batch = int(cx, "batch_dims", 0)?;
        let (Some(data), Some(indices)) = (cx.shape(0), cx.shape(1)) else { return output(cx.elem(0), None) };
        let [kept @ .., coordinates] = indices else { return Err(Error::invalid("its indices are a scalar")) };
        let Some(coordinates) = coordinates.known() else { return output(cx.elem(0), None) };
        let from = usize::try_from(batch).ok().and_then(|b| b.checked_add(coordinates));
        let Some(rest) = from.and_then(|from| data.get(from..)) else {
            let rank = data.len();
            return Err(Error::invalid(format!("{batch} batch axes and {coordinates} coordinates for rank {rank}")));
        };
        output(cx.elem(0), Some([kept, rest].concat()))
    }
}
