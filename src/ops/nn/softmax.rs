//! Softmax, LogSoftmax and Hardmax. Before operator set 13 they flatten their input to a matrix at `axis` (default 1) and
//! work on its rows; as of it they work along one axis (default -1).

use crate::error::Result;
use crate::ir::{AttributeValue, Dim};
use crate::ops::rules::{axis, int, is_f32, same_as};
use crate::ops::spec::{InferContext, Inferred, OpSpec, QuantRole, Schema, Upgrade, op};

/// Normalizes along an axis.
pub struct Softmax;

impl OpSpec for Softmax {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Softmax", &[1, 11, 13]), op("LogSoftmax", &[1, 11, 13]), op("Hardmax", &[1, 11, 13])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let given = int(cx, "axis", if cx.opset < 13 { 1 } else { -1 })?;
        if let Some(rank) = cx.shape(0).map(<[Dim]>::len) {
            // Flattening may begin after the last axis.
            let end = i64::try_from(rank).is_ok_and(|r| r == given) && cx.opset < 13;
            if !end {
                axis(given, rank)?;
            }
        }
        same_as(cx, 0)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        match &*cx.node.op.op_type {
            "Softmax" if is_f32(cx, 0) => QuantRole::Elementwise { inputs: vec![0] },
            _ => QuantRole::Opaque,
        }
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        if cx.opset >= 13 || to < 13 {
            return Upgrade::Same;
        }
        let Some(shape) = cx.shape(0) else { return Upgrade::Impossible("the rank of its input is not known".into()) };
        let Some(at) = int(cx, "axis", 1).ok().and_then(|a| axis(a, shape.len()).ok()) else {
            return Upgrade::Impossible("its axis is outside its input".into());
        };
        // A row of the matrix must run along one axis: every other axis from `at` on has size 1.
        let long: Vec<usize> = (at..shape.len()).filter(|&k| shape[k] != Dim::Known(1)).collect();
        let along = match long[..] {
            [] => shape.len() - 1,
            [k] => k,
            _ => return Upgrade::Impossible("before operator set 13 it normalizes over several axes".into()),
        };
        let mut node = cx.node.clone();
        node.set("axis", AttributeValue::Int(along as i64));
        Upgrade::Changed { node: Box::new(node), new_inputs: vec![] }
    }
}
