//! Einsum.

use crate::error::{Error, Result};
use crate::ir::{Dim, Type};
use crate::ops::axes::{Axis, AxisLinks, LinkContext, input, output as out};
use crate::ops::rules::{broadcast_dim, count, output, string};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};
use std::collections::BTreeMap;

/// Sums of products after Einstein's convention.
pub struct Einsum;

/// What an equation says about the inputs.
struct Equation {
    sizes: BTreeMap<char, Dim>,
    output: Vec<char>,
}

/// `None` where a rank is unknown or the equation has an ellipsis.
fn read(cx: &InferContext) -> Result<Option<Equation>> {
    let equation: String = string(cx, "equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    if equation.is_empty() {
        return Err(Error::invalid("attribute \"equation\" is missing"));
    }
    if equation.contains('.') {
        return Ok(None);
    }
    let (left, right) = equation.split_once("->").map_or((&*equation, None), |(l, r)| (l, Some(r)));
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != cx.inputs.len() {
        let (n, m) = (terms.len(), cx.inputs.len());
        return Err(Error::invalid(format!("equation \"{equation}\" has {n} terms, the node {m} inputs")));
    }
    let (mut sizes, mut uses): (BTreeMap<char, Dim>, BTreeMap<char, usize>) = Default::default();
    for (k, term) in terms.iter().enumerate() {
        let Some(shape) = cx.shape(k) else { return Ok(None) };
        if term.chars().count() != shape.len() {
            return Err(Error::invalid(format!(
                "term \"{term}\" names other axes than an input of rank {}",
                shape.len()
            )));
        }
        for (letter, d) in term.chars().zip(shape) {
            *uses.entry(letter).or_default() += 1;
            let so_far = sizes.entry(letter).or_insert(Dim::Known(1));
            *so_far = broadcast_dim(so_far, d)?;
        }
    }
    // Without an arrow: the letters used once, in alphabetical order.
    let implied = || uses.iter().filter(|(_, n)| **n == 1).map(|(c, _)| *c).collect();
    let output = right.map_or_else(implied, |r| r.chars().collect());
    Ok(Some(Equation { sizes, output }))
}

impl OpSpec for Einsum {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Einsum", &[12])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let Some(Equation { sizes, output: letters }) = read(cx)? else { return output(cx.elem(0), None) };
        let size = |c: &char| {
            let unknown = || Error::invalid(format!("the output names the axis '{c}', which no input has"));
            sizes.get(c).cloned().ok_or_else(unknown)
        };
        output(cx.elem(0), Some(letters.iter().map(size).collect::<Result<_>>()?))
    }

    fn macs(&self, cx: &InferContext, _outputs: &[Option<&Type>]) -> Option<u64> {
        let all: Vec<Dim> = read(cx).ok()??.sizes.into_values().collect();
        Some(count(&all).saturating_mul((cx.inputs.len() as u64).saturating_sub(1)))
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let equation = read(cx.cx).ok()??;
        let mut links = AxisLinks::default();
        let mut first: BTreeMap<char, Axis> = BTreeMap::new();
        let left: String = string(cx.cx, "equation", "").ok()?.chars().filter(|c| !c.is_whitespace()).collect();
        let terms = left.split("->").next()?.split(',').enumerate();
        let places = terms.flat_map(|(k, term)| term.chars().enumerate().map(move |(at, c)| (c, input(k, at))));
        let outputs = equation.output.iter().enumerate().map(|(at, c)| (*c, out(0, at)));
        for (letter, axis) in places.chain(outputs) {
            match first.get(&letter) {
                None => {
                    first.insert(letter, axis);
                    links.free(axis);
                }
                Some(&other) if cx.equal(axis, other) => links.same(axis, other),
                Some(_) => return None, // stretched
            }
        }
        Some(links)
    }
}
