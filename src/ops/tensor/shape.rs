//! Shape and Size.

use crate::error::Result;
use crate::ir::{DType, Dim};
use crate::ops::axes::{AxisLinks, LinkContext, input};
use crate::ops::rules::{int, output, product};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Where shape arithmetic begins.
pub struct Shape;

impl OpSpec for Shape {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Shape", &[1, 13, 15, 19, 21, 23, 24, 25]), op("Size", &[1, 13, 19, 21, 23, 24, 25])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let (shape, data) = match (&*cx.node.op.op_type, cx.shape(0)) {
            ("Size", dims) => (vec![], dims.map(|d| vec![product(d)])),
            (_, None) => (vec![Dim::Unknown], None),
            (_, Some(dims)) => {
                let rank = dims.len() as i64;
                let bound = |x: i64| if x < 0 { x.saturating_add(rank) } else { x }.clamp(0, rank) as usize;
                let (start, end) = match cx.opset {
                    15.. => (bound(int(cx, "start", 0)?), bound(int(cx, "end", rank)?)),
                    _ => (0, dims.len()),
                };
                let part = dims.get(start..end).unwrap_or_default();
                (vec![Dim::Known(part.len() as i64)], Some(part.to_vec()))
            }
        };
        let mut out = output(Some(DType::I64), Some(shape))?;
        if let [inferred] = &mut out[..] {
            inferred.data = data;
        }
        Ok(out)
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        // That sizes are read is the analysis' concern, which sees what becomes of them.
        let mut links = AxisLinks::default();
        if &*cx.cx.node.op.op_type == "Shape" {
            (0..cx.rank(0)?).for_each(|k| links.free(input(0, k)));
        }
        Some(links)
    }
}
