//! QLinearAveragePool and QLinearGlobalAveragePool of ONNX Runtime.

use crate::error::Result;
use crate::ir::Dim;
use crate::ops::rules::{int, output, require_rank};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, contrib};
use crate::ops::window::pool_shape;

/// Inputs X, x_scale, x_zero_point, y_scale, y_zero_point; channels may be last.
pub struct QLinearPool;

impl OpSpec for QLinearPool {
    fn schemas(&self) -> &'static [Schema] {
        &const { [contrib("QLinearAveragePool"), contrib("QLinearGlobalAveragePool")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let elem = cx.elem(if cx.present(4) { 4 } else { 0 });
        let channels_last = int(cx, "channels_last", 0)? != 0;
        if &*cx.node.op.op_type == "QLinearAveragePool" {
            return output(elem, pool_shape(cx, 0, channels_last)?);
        }
        require_rank(cx, 0, 3)?;
        let Some(shape) = cx.shape(0) else { return output(elem, None) };
        let channel = if channels_last { shape.len() - 1 } else { 1 };
        let kept = |k: usize| k == 0 || k == channel;
        let pooled = shape.iter().enumerate().map(|(k, d)| if kept(k) { d.clone() } else { Dim::Known(1) });
        output(elem, Some(pooled.collect()))
    }
}
