//! Reshape.

use crate::error::{Error, Result};
use crate::ir::{Dim, Port, Tensor};
use crate::ops::axes::{AxisFact, AxisLinks, Kept, LinkContext, Narrowed, input, output as out};
use crate::ops::gradient::{Rule, reshape_backward, reshape_forward, rule};
use crate::ops::rules::{Listed, attribute_to_input, int, is_f32, listed, output, unknown_of_len, vector, without};
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

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let mut links = reshape_links(cx)?;
        // A target that is computed is replaced by a constant one, so that must exist.
        if target(cx, &Kept::default()).is_none() {
            let why = "the target of a Reshape is computed";
            (0..cx.out_rank(0)?).for_each(|k| links.barrier(out(0, k), why));
            (0..cx.rank(0)?).for_each(|k| links.barrier(input(0, k), why));
        } else {
            links.free(input(1, 0));
        }
        Some(links)
    }

    fn narrow(&self, cx: &LinkContext, kept: &Kept) -> Narrowed {
        if kept.0.is_empty() && cx.cx.constant(1).is_some() {
            return Narrowed::Same;
        }
        let Some(target) = target(cx, kept) else {
            // What it depends on is then a barrier.
            return if kept.0.is_empty() {
                Narrowed::Same
            } else {
                Narrowed::Impossible("its target is computed".into())
            };
        };
        let node = without(cx.cx.node, &["allowzero", "shape"]);
        Narrowed::Changed { node: Box::new(node), inputs: vec![(1, Tensor::from_i64(&[target.len()], &target))] }
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

/// The target with the kept sizes: numbers, 0 for the axis of the input in the same place, -1 for one other size.
/// `None` where that does not suffice.
fn target(cx: &LinkContext, kept: &Kept) -> Option<Vec<i64>> {
    let (from, to) = (cx.cx.shape(0)?, cx.shape(Port::Out(0))?);
    let mut guessed = false;
    let mut target = Vec::with_capacity(to.len());
    for (k, dim) in to.iter().enumerate() {
        target.push(match kept.dim(out(0, k), dim) {
            Dim::Known(0) => return None,
            Dim::Known(n) => n,
            Dim::Sym(_) if from.get(k) == Some(dim) => 0,
            _ if guessed => return None,
            _ => {
                guessed = true;
                -1
            }
        });
    }
    Some(target)
}

/// Links of whatever keeps the elements in order and groups them into other axes. Shapes are cut into stretches that
/// hold the same elements; equal sizes go together, and an axis goes with the axes that it joins.
pub fn reshape_links(cx: &LinkContext) -> Option<AxisLinks> {
    let (from, to) = (cx.cx.shape(0)?, cx.shape(Port::Out(0))?);
    let mut links = AxisLinks::default();
    let (mut i, mut j) = (0, 0);
    loop {
        // Axes of size 1 belong to any stretch.
        while from.get(i) == Some(&Dim::Known(1)) && to.get(j) != Some(&Dim::Known(1)) {
            links.free(input(0, i));
            i += 1;
        }
        while to.get(j) == Some(&Dim::Known(1)) && from.get(i) != Some(&Dim::Known(1)) {
            links.free(out(0, j));
            j += 1;
        }
        let (Some(a), Some(b)) = (from.get(i), to.get(j)) else { break };
        if a == b && *a != Dim::Unknown {
            links.same(input(0, i), out(0, j));
            (i, j) = (i + 1, j + 1);
            continue;
        }
        let (Some(mut left), Some(mut right)) = (a.known(), b.known()) else {
            same_from_the_end(&mut links, &from[i..], &to[j..], (i, j));
            break;
        };
        let (mut m, mut n) = (1, 1);
        while left != right {
            let side =
                if left < right { (&mut left, from.get(i + m), &mut m) } else { (&mut right, to.get(j + n), &mut n) };
            let Some(more) = side.1.and_then(Dim::known).filter(|&d| d > 0) else { return Some(links) };
            *side.0 = side.0.checked_mul(more)?;
            *side.2 += 1;
        }
        let many = |dims: &[Dim], at: usize, len: usize| (at..at + len).filter(|&k| dims[k] != Dim::Known(1)).collect();
        let (inputs, outputs): (Vec<usize>, Vec<usize>) = (many(from, i, m), many(to, j, n));
        (i..i + m).filter(|k| !inputs.contains(k)).for_each(|k| links.free(input(0, k)));
        (j..j + n).filter(|k| !outputs.contains(k)).for_each(|k| links.free(out(0, k)));
        match (&inputs[..], &outputs[..]) {
            (&[a], &[b]) => links.same(input(0, a), out(0, b)),
            (&[flat], many) => {
                let factors = many.iter().map(|&k| out(0, k)).collect();
                links.0.push(AxisFact::Factors { flat: input(0, flat), factors });
            }
            (many, &[flat]) => {
                let factors = many.iter().map(|&k| input(0, k)).collect();
                links.0.push(AxisFact::Factors { flat: out(0, flat), factors });
            }
            _ => {}
        }
        (i, j) = (i + m, j + n);
    }
    Some(links)
}

/// Sizes that are equal from the last axis on hold the same elements.
fn same_from_the_end(links: &mut AxisLinks, from: &[Dim], to: &[Dim], start: (usize, usize)) {
    let pairs = from.iter().enumerate().rev().zip(to.iter().enumerate().rev());
    for ((i, _), (j, _)) in pairs.take_while(|((_, a), (_, b))| a == b && **a != Dim::Unknown) {
        links.same(input(0, start.0 + i), out(0, start.1 + j));
    }
}
