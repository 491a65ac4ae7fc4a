//! TopK: `k` is an attribute before operator set 10, an input as of it.

use crate::error::Result;
use crate::ir::{AttributeValue, DType, Dim, Tensor};
use crate::ops::rules::{axis, int, known_vector, without};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, Upgrade, op};

/// The largest (or smallest) elements along an axis, and where they were.
pub struct TopK;

impl OpSpec for TopK {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("TopK", &[1, 10, 11, 24])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let at = int(cx, "axis", -1)?;
        let k = if cx.opset < 10 {
            Some(int(cx, "k", 0)?)
        } else {
            known_vector(cx, 1).filter(|v| v.len() == 1).map(|v| v[0])
        };
        let shape = match cx.shape(0) {
            None => None,
            Some(shape) => {
                let mut shape = shape.to_vec();
                let at = axis(at, shape.len())?;
                shape[at] = k.filter(|&k| k >= 0).map_or(Dim::Unknown, Dim::Known);
                Some(shape)
            }
        };
        Ok(vec![Inferred::tensor(cx.elem(0), shape.clone()), Inferred::tensor(Some(DType::I64), shape)])
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        match cx.node.attribute("k") {
            _ if cx.opset >= 10 || to < 10 => Upgrade::Same,
            Some(AttributeValue::Int(k)) => {
                let node = Box::new(without(cx.node, &["k"]));
                Upgrade::Changed { node, new_inputs: vec![(1, Tensor::from_i64(&[1], &[*k]))] }
            }
            _ => Upgrade::Impossible("its attribute \"k\" is missing".into()),
        }
    }
}
