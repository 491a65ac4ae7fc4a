//! Unsqueeze: axes are an attribute before operator set 13, an input as of it.

use super::reshape::reshape_links;
use crate::error::{Error, Result};
use crate::ir::Dim;
use crate::ops::axes::{AxisLinks, LinkContext};
use crate::ops::gradient::{Rule, reshape_backward, reshape_forward, rule};
use crate::ops::rules::{
    DATA_LIMIT, Listed, attribute_to_input, axis_mask, is_f32, listed, output, unknown_of_len, vector,
};
use crate::ops::spec::{InferContext, Inferred, OpSpec, QuantRole, Schema, Upgrade, op};

/// Inserts axes of size 1.
pub struct Unsqueeze;

impl OpSpec for Unsqueeze {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Unsqueeze", &[1, 11, 13, 21, 23, 24, 25])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let shape = shape(cx)?;
        let data = vector(cx, 0).filter(|_| shape.as_ref().is_some_and(|s| s.len() <= 1));
        let mut out = output(cx.elem(0), shape)?;
        if let [inferred] = &mut out[..] {
            inferred.data = data;
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
    let axes = match listed(cx, "axes", 1, 13)? {
        Listed::Known(axes) => axes,
        Listed::Absent => return Err(Error::invalid("its axes are missing")),
        Listed::Unknown => {
            let rank = cx.shape(0).map(<[Dim]>::len).zip(unknown_of_len(cx, 1));
            return Ok(rank.map(|(rank, axes)| vec![Dim::Unknown; rank + axes.len()]));
        }
    };
    let Some(shape) = cx.shape(0) else { return Ok(None) };
    if axes.len() > DATA_LIMIT {
        return Err(Error::invalid("too many axes"));
    }
    let mask = axis_mask(&axes, shape.len() + axes.len())?;
    let mut old = shape.iter();
    let one = Dim::Known(1);
    // The mask has exactly as many unset places as the input has axes.
    Ok(Some(mask.iter().filter_map(|&new| if new { Some(&one) } else { old.next() }).cloned().collect()))
}
