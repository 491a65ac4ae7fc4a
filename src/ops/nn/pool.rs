//! AveragePool, MaxPool and LpPool.

use crate::error::Result;
use crate::ir::DType;
use crate::ops::legacy::integer_exponent;
use crate::ops::rules::{ints, is_f32};
use crate::ops::spec::{ChannelRole, InferContext, Inferred, OpSpec, QuantRole, Schema, Upgrade, op};
use crate::ops::window::pool_shape;

/// Pools with a window. They share their shape rule; the table of roles is in [`OpSpec::quant`].
pub struct Pool;

impl OpSpec for Pool {
    fn schemas(&self) -> &'static [Schema] {
        &const {
            [
                op("AveragePool", &[1, 7, 10, 11, 19, 22]),
                op("MaxPool", &[1, 8, 10, 11, 12, 22]),
                op("LpPool", &[1, 2, 11, 18, 22]),
            ]
        }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let shape = pool_shape(cx, 0, false)?;
        let indices = Inferred::tensor(Some(DType::I64), shape.clone());
        Ok(vec![Inferred::tensor(cx.elem(0), shape), indices])
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        let dilated = ints(cx, "dilations").ok().flatten().is_some_and(|d| d.iter().any(|&x| x != 1));
        match &*cx.node.op.op_type {
            _ if !is_f32(cx, 0) => QuantRole::Opaque,
            // Its second output holds positions, which no 8-bit kernel computes.
            "MaxPool" if cx.node.output_slots == 1 => QuantRole::PassThrough { input: 0 },
            // QLinearAveragePool has no dilations.
            "AveragePool" if !dilated => QuantRole::Elementwise { inputs: vec![0] },
            _ => QuantRole::Opaque,
        }
    }

    fn channels(&self, cx: &InferContext, axis: usize) -> ChannelRole {
        // Positions of maxima do not depend on positive factors either.
        match &*cx.node.op.op_type {
            "AveragePool" | "MaxPool" if axis == 1 => ChannelRole::same(axis),
            _ => ChannelRole::Barrier,
        }
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        if cx.opset < 2 && to >= 2 && &*cx.node.op.op_type == "LpPool" { integer_exponent(cx) } else { Upgrade::Same }
    }
}
