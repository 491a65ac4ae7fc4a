//! Squeeze: axes are an attribute before operator set 13, an input as of it.

use super::reshape::reshape_links;
use crate::error::{Error, Result};
use crate::ir::Dim;
use crate::ops::axes::{AxisLinks, LinkContext};
use crate::ops::gradient::{Rule, reshape_backward, reshape_forward, rule};
use crate::ops::rules::{Listed, attribute_to_input, axis_mask, is_f32, listed, output, vector};
use crate::ops::spec::{InferContext, Inferred, OpSpec, QuantRole, Schema, Upgrade, op};

/// Removes axes of size 1.
pub struct Squeeze;

impl OpSpec for Squeeze {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Squeeze", &[1, 11, 13, 21, 23, 24, 25])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let mut out = output(cx.elem(0), shape(cx)?)?;
        if let [inferred] = &mut out[..] {
            inferred.data = vector(cx, 0);
        }
        Ok(out)
    }

    fn gradient(&self, _cx: &InferContext) -> Option<Rule> {
        rule!(reshape_forward, reshape_backward)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if is_f32(cx, 0) { QuantRole::PassThrough { input: 0 } } else { QuantRole::Opaque }
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        if cx.opset < 13 && to >= 13 { attribute_to_input(cx, "axes", 1) } else { Upgrade::Same }
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        reshape_links(cx)
    }
}

fn shape(cx: &InferContext) -> Result<Option<Vec<Dim>>> {
    let Some(shape) = cx.shape(0) else { return Ok(None) };
    match listed(cx, "axes", 1, 13)? {
        Listed::Unknown => Ok(None),
        // Which axes go is known only if every size is.
        Listed::Absent if shape.iter().any(|d| d.known().is_none()) => Ok(None),
        Listed::Absent => Ok(Some(shape.iter().filter(|d| **d != Dim::Known(1)).cloned().collect())),
        Listed::Known(axes) => {
            let mask = axis_mask(&axes, shape.len())?;
            let removed = shape.iter().zip(&mask).filter(|(_, gone)| **gone);
            if let Some((d, _)) = removed.into_iter().find(|(d, _)| matches!(d, Dim::Known(n) if *n != 1)) {
                return Err(Error::invalid(format!("it removes an axis of size {d}")));
            }
            Ok(Some(shape.iter().zip(&mask).filter(|(_, gone)| !**gone).map(|(d, _)| d.clone()).collect()))
        }
    }
}
