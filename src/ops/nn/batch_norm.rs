//! BatchNormalization.

use crate::error::Result;
use crate::ops::axes::{AxisLinks, LinkContext, elementwise_links, input, output};
use crate::ops::rules::{int, without};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, Upgrade, op};

/// Normalization with stored statistics.
pub struct BatchNormalization;

impl OpSpec for BatchNormalization {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("BatchNormalization", &[1, 6, 7, 9, 14, 15])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let like = |k: usize| Inferred::tensor(cx.elem(k), cx.shape(k).map(<[_]>::to_vec));
        Ok(if cx.opset >= 14 { vec![like(0), like(3), like(4)] } else { vec![like(0)] })
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        let no = |why: &str| Upgrade::Impossible(why.into());
        if cx.opset < 7 && int(cx, "is_test", 0).ok() != Some(1) {
            return no("it is in training mode");
        }
        if cx.opset < 9 && int(cx, "spatial", 1).ok() != Some(1) {
            return no("\"spatial\" other than 1 has no successor");
        }
        if cx.opset < 14 && to >= 14 && cx.node.output_slots > 1 {
            return no("it is in training mode, whose outputs changed in operator set 14");
        }
        let legacy = ["spatial", "is_test"];
        if cx.opset < 9 && legacy.iter().any(|a| cx.node.attribute(a).is_some()) {
            return Upgrade::Changed { node: Box::new(without(cx.node, &legacy)), new_inputs: vec![] };
        }
        Upgrade::Same
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        if cx.cx.node.output_slots > 1 || cx.cx.opset < 9 {
            return None; // training
        }
        let mut links = elementwise_links(cx, 0)?;
        (1..5).for_each(|k| links.same(input(k, 0), output(0, 1)));
        Some(links)
    }
}
