//! RoiAlign, whose coordinates moved by half a pixel in operator set 16, and MaxRoiPool.

use crate::error::{Error, Result};
use crate::ir::Dim;
use crate::ops::rules::{changed, int, ints, output, size};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, Upgrade, op};

/// Pools each region of interest to one size: `[regions, channels, height, width]`.
pub struct RoiPool;

impl OpSpec for RoiPool {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("RoiAlign", &[10, 16, 22]), op("MaxRoiPool", &[1, 22])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let (height, width) = if &*cx.node.op.op_type == "RoiAlign" {
            (int(cx, "output_height", 1)?, int(cx, "output_width", 1)?)
        } else {
            match ints(cx, "pooled_shape")? {
                Some([h, w]) => (*h, *w),
                _ => return Err(Error::invalid("attribute \"pooled_shape\" needs 2 elements")),
            }
        };
        if height < 1 || width < 1 {
            return Err(Error::invalid(format!("its output size is {height} x {width}")));
        }
        let shape = vec![size(cx, 1, 0), size(cx, 0, 1), Dim::Known(height), Dim::Known(width)];
        output(cx.elem(0), Some(shape))
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        if &*cx.node.op.op_type != "RoiAlign" || cx.opset >= 16 || to < 16 {
            return Upgrade::Same;
        }
        let mut node = cx.node.clone();
        node.set("coordinate_transformation_mode", "output_half_pixel".into());
        changed(node)
    }
}
