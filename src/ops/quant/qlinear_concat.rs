//! QLinearConcat of ONNX Runtime.

use crate::error::{Error, Result};
use crate::ops::rules::{int, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, contrib};
use crate::ops::tensor::concat::concat_shape;

/// Inputs y_scale, y_zero_point, then x, x_scale, x_zero_point per joined tensor.
pub struct QLinearConcat;

impl OpSpec for QLinearConcat {
    fn schemas(&self) -> &'static [Schema] {
        &const { [contrib("QLinearConcat")] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        if cx.node.attribute("axis").is_none() {
            return Err(Error::invalid("attribute \"axis\" is missing"));
        }
        let joined = (2..cx.inputs.len()).step_by(3);
        output(cx.elem(1), concat_shape(cx, int(cx, "axis", 0)?, joined)?)
    }
}
