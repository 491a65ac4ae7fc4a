//! Reshape.

use crate::error::{Error, Result};
use crate::ir::Dim;
use crate::ops::gradient::{Rule, reshape_backward, reshape_forward, rule};
use crate::ops::rules::{Listed, attribute_to_input, int, is_f32, listed, output, unknown_of_len, vector};
use crate::ops::spec::{InferContext, Inferred, OpSpec, QuantRole, Schema, Upgrade, op};
use std::sync::Arc;

/// Gives the elements another shape.
pub struct Reshape;

impl OpSpec for Reshape {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Reshape", &[1, 5, 13, 14, 19, 21, 23, 24, 25])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let mut out = output(cx.elem(0), shape(cx)?)?;
        // A vector of shape arithmetic reshaped to a vector or scalar.
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

    fn upgrade(&self, cx: &InferContext, _to: i64) -> Upgrade {
        if cx.opset < 5 { attribute_to_input(cx, "shape", 1) } else { Upgrade::Same }
    }
}

fn shape(cx: &InferContext) -> Result<Option<Vec<Dim>>> {
    let requested = if cx.opset < 5 {
        match listed(cx, "shape", 1, 5)? {
            Listed::Known(v) => Some(v.into_iter().map(Dim::Known).collect()),
            _ => None,
        }
    } else {
        vector(cx, 1)
    };
    let Some(requested) = requested else { return Ok(unknown_of_len(cx, 1)) };
    let copies_zero = cx.opset < 14 || int(cx, "allowzero", 0)? == 0;
    let input = cx.shape(0);
    let mut inferred_at = None;
    let mut shape = Vec::with_capacity(requested.len());
    for (k, d) in requested.into_iter().enumerate() {
        shape.push(match d {
            Dim::Known(-1) if inferred_at.replace(k).is_some() => {
                return Err(Error::invalid("the requested shape has more than one -1"));
            }
            Dim::Known(-1) => Dim::Unknown,
            Dim::Known(n) if n < 0 => return Err(Error::invalid(format!("the requested shape has the dimension {n}"))),
            Dim::Known(0) if copies_zero => match input {
                Some(input) => input.get(k).cloned().ok_or_else(|| {
                    Error::invalid(format!("the requested shape copies axis {k} of an input of rank {}", input.len()))
                })?,
                None => Dim::Unknown,
            },
            d => d,
        });
    }
    if let Some(input) = input {
        fill(input, &mut shape, inferred_at)?;
    }
    Ok(Some(shape))
}

/// Known factor and symbols of a product; `None` where a factor is unknown or the product overflows.
fn factors<'a>(dims: impl Iterator<Item = &'a Dim>) -> Option<(i64, Vec<&'a Arc<str>>)> {
    let (mut known, mut symbols) = (1i64, vec![]);
    for d in dims {
        match d {
            Dim::Known(n) => known = known.checked_mul(*n)?,
            Dim::Sym(s) => symbols.push(s),
            Dim::Unknown => return None,
        }
    }
    symbols.sort();
    Some((known, symbols))
}

/// Works out the dimension that was requested as -1, cancelling equal symbols, and checks element counts.
fn fill(input: &[Dim], shape: &mut [Dim], inferred_at: Option<usize>) -> Result<()> {
    let others = shape.iter().enumerate().filter(|(k, _)| Some(*k) != inferred_at).map(|(_, d)| d);
    let (Some((have, mut left)), Some((want, symbols))) = (factors(input.iter()), factors(others)) else {
        return Ok(());
    };
    for s in symbols {
        match left.iter().position(|l| *l == s) {
            Some(at) => drop(left.remove(at)),
            None => return Ok(()),
        }
    }
    let mismatch =
        || Error::invalid(format!("{have} elements (per symbolic dimension) do not fill a multiple of {want}"));
    let Some(at) = inferred_at else {
        return if left.is_empty() && have != want { Err(mismatch()) } else { Ok(()) };
    };
    match (&left[..], want) {
        // Zero elements: any size would do, and the executor's choice is not ours to guess.
        (_, 0) => {}
        ([], _) if have % want != 0 => return Err(mismatch()),
        ([], _) => shape[at] = Dim::Known(have / want),
        ([symbol], _) if have == want => shape[at] = Dim::Sym((*symbol).clone()),
        _ => {}
    }
    Ok(())
}
