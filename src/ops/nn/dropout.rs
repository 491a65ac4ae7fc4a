//! Dropout: the ratio is an attribute before operator set 12, an input as of it.

use crate::error::Result;
use crate::ir::{DType, Tensor};
use crate::ops::axes::{AxisLinks, LinkContext, elementwise_links};
use crate::ops::gradient::{Rule, reshape_backward, reshape_forward, rule};
use crate::ops::rules::{float, int, without};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, Upgrade, op};

/// In inference, the identity.
pub struct Dropout;

impl OpSpec for Dropout {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Dropout", &[1, 6, 7, 10, 12, 13, 22])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let shape = cx.shape(0).map(<[_]>::to_vec);
        let mask = if cx.opset < 10 { cx.elem(0) } else { Some(DType::Bool) };
        Ok(vec![Inferred::tensor(cx.elem(0), shape.clone()), Inferred::tensor(mask, shape)])
    }

    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        // In inference, the identity; its mask is not computed.
        if cx.used_outputs > 1 { None } else { rule!(reshape_forward, reshape_backward) }
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        if cx.opset < 7 && int(cx, "is_test", 0).ok() != Some(1) {
            return Upgrade::Impossible("it is in training mode".into());
        }
        if cx.opset < 10 && to >= 10 && cx.used_outputs > 1 {
            return Upgrade::Impossible("its mask became boolean in operator set 10".into());
        }
        if cx.opset < 10 && (10..12).contains(&to) {
            // Changed at least in the type of its mask.
            return Upgrade::Changed { node: Box::new(cx.node.clone()), new_inputs: vec![] };
        }
        if cx.opset >= 12 || to < 12 {
            return Upgrade::Same;
        }
        let Ok(ratio) = float(cx, "ratio", 0.5) else {
            return Upgrade::Impossible("its attribute \"ratio\" is not a float".into());
        };
        let node = without(cx.node, &["ratio", "is_test"]);
        Upgrade::Changed { node: Box::new(node), new_inputs: vec![(1, Tensor::from_f32(&[], &[ratio]))] }
    }

    fn deterministic(&self) -> bool {
        false
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let mut links = elementwise_links(cx, 0)?;
        if cx.out_rank(1).is_some() {
            links.same_rest(0, 1, 0..cx.rank(0)?);
        }
        Some(links)
    }
}
