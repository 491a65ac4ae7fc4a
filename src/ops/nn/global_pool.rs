//! GlobalAveragePool, GlobalMaxPool and GlobalLpPool.

use crate::error::Result;
use crate::ir::Dim;
use crate::ops::legacy::integer_exponent;
use crate::ops::rules::{is_f32, output, require_rank};
use crate::ops::spec::{ChannelRole, InferContext, Inferred, OpSpec, QuantRole, Schema, Upgrade, op};

/// Pools over all spatial axes.
pub struct GlobalPool;

impl OpSpec for GlobalPool {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("GlobalAveragePool", &[1, 22]), op("GlobalMaxPool", &[1, 22]), op("GlobalLpPool", &[1, 2, 22])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        require_rank(cx, 0, 2)?;
        let pooled =
            |s: &[Dim]| s.iter().enumerate().map(|(i, d)| if i < 2 { d.clone() } else { Dim::Known(1) }).collect();
        output(cx.elem(0), cx.shape(0).map(pooled))
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        match &*cx.node.op.op_type {
            "GlobalAveragePool" if is_f32(cx, 0) => QuantRole::Elementwise { inputs: vec![0] },
            // GlobalMaxPool would pass the scale through, but unlike MaxPool it takes no integers.
            _ => QuantRole::Opaque,
        }
    }

    fn channels(&self, _cx: &InferContext, axis: usize) -> ChannelRole {
        if axis == 1 { ChannelRole::same(axis) } else { ChannelRole::Barrier }
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        if cx.opset < 2 && to >= 2 && &*cx.node.op.op_type == "GlobalLpPool" {
            integer_exponent(cx)
        } else {
            Upgrade::Same
        }
    }
}
