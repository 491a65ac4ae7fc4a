//! Cast and CastLike.

use crate::error::{Error, Result};
use crate::ir::{AttributeValue, DType, Dim};
use crate::ops::axes::{AxisLinks, LinkContext, elementwise_links};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{output, vector};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, Upgrade, op};

/// Converts elements to another type.
pub struct Cast;

fn target(cx: &InferContext) -> Result<Option<DType>> {
    if &*cx.node.op.op_type == "CastLike" {
        return Ok(cx.elem(1));
    }
    let found = match cx.node.attribute("to") {
        Some(AttributeValue::Int(code)) => i32::try_from(*code).ok().and_then(DType::from_onnx),
        // Until 6 it was the name: "FLOAT", "INT64".
        Some(AttributeValue::String(name)) if cx.opset < 6 => {
            std::str::from_utf8(name).ok().and_then(|n| DType::from_name(&n.to_lowercase()))
        }
        _ => None,
    };
    found.map(Some).ok_or_else(|| Error::invalid("attribute \"to\" is no element type"))
}

impl OpSpec for Cast {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Cast", &[1, 6, 9, 13, 19, 21, 23, 24, 25]), op("CastLike", &[15, 19, 21, 23, 24, 25])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let to = target(cx)?;
        let mut out = output(to, cx.shape(0).map(<[Dim]>::to_vec))?;
        // Narrowing could change a value; 32 bits hold every size that shape arithmetic meets, but check.
        let integers = cx.elem(0).is_some_and(|t| t.is_int() || t == DType::Bool);
        let fits = |v: &Vec<Dim>| v.iter().all(|d| !matches!(d, Dim::Known(n) if i32::try_from(*n).is_err()));
        if let [inferred] = &mut out[..]
            && integers
        {
            inferred.data = match to {
                Some(DType::I64) => vector(cx, 0),
                Some(DType::I32) => vector(cx, 0).filter(fits),
                _ => None,
            };
        }
        Ok(out)
    }

    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        let floats = target(cx).ok()??.is_float() && cx.elem(0)?.is_float();
        if floats { rule!(forward, backward) } else { None }
    }

    fn upgrade(&self, cx: &InferContext, _to: i64) -> Upgrade {
        match (target(cx), cx.opset < 6) {
            (Ok(Some(to)), true) => {
                let mut node = cx.node.clone();
                node.set("to", AttributeValue::Int(to.onnx().into()));
                Upgrade::Changed { node: Box::new(node), new_inputs: vec![] }
            }
            (_, true) => Upgrade::Impossible("its attribute \"to\" is no element type".into()),
            _ => Upgrade::Same,
        }
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        elementwise_links(cx, 0)
    }
}

/// Between float types: the tape has one precision for all of them.
fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    Ok(Computed::one(f.float(0)?.clone()))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    Ok(b.first(b.grad()?.clone()))
}
