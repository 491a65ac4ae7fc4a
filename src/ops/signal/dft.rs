//! DFT: the axis is an attribute (default 1) before operator set 20, an input (default -2) as of it.

use crate::error::{Error, Result};
use crate::ir::{Dim, Tensor};
use crate::ops::rules::{axis, int, output, single, without};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, Upgrade, op};

/// Discrete Fourier transform; the last axis holds real and imaginary parts.
pub struct Dft;

impl OpSpec for Dft {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("DFT", &[17, 20])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(cx.elem(0), shape(cx)?)
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        if cx.opset >= 20 || to < 20 {
            return Upgrade::Same;
        }
        match int(cx, "axis", 1) {
            Ok(at) => {
                let node = Box::new(without(cx.node, &["axis"]));
                Upgrade::Changed { node, new_inputs: vec![(2, Tensor::from_i64(&[], &[at]))] }
            }
            Err(e) => Upgrade::Impossible(e.to_string()),
        }
    }
}

fn shape(cx: &InferContext) -> Result<Option<Vec<Dim>>> {
    let Some(shape) = cx.shape(0) else { return Ok(None) };
    let rank = shape.len();
    let at = match (cx.opset >= 20, cx.present(2)) {
        (false, _) => Some(int(cx, "axis", 1)?),
        (true, false) => Some(-2),
        (true, true) => match single(cx, 2) {
            Some(Dim::Known(at)) => Some(at),
            _ => None,
        },
    };
    let Some(at) = at else { return Ok(Some(vec![Dim::Unknown; rank])) };
    let at = axis(at, rank)?;
    let mut out = shape.to_vec();
    let (one_sided, inverse) = (int(cx, "onesided", 0)? != 0, int(cx, "inverse", 0)? != 0);
    let mut length = if cx.present(1) { single(cx, 1).unwrap_or(Dim::Unknown) } else { shape[at].clone() };
    if matches!(length, Dim::Known(n) if n < 0) {
        return Err(Error::invalid(format!("its length is {length}")));
    }
    if one_sided && inverse && !cx.present(1) {
        // The length of a real signal is not known from its half spectrum.
        length = Dim::Unknown;
    }
    out[at] = match length {
        Dim::Known(n) if one_sided && !inverse => Dim::Known(n / 2 + 1),
        _ if one_sided && !inverse => Dim::Unknown,
        n => n,
    };
    out[rank - 1] = Dim::Known(if one_sided && inverse { 1 } else { 2 });
    Ok(Some(out))
}
