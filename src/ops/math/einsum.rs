//! Einsum.

use crate::error::{Error, Result};
use crate::ir::{Dim, Type};
use crate::math::{Array, View, gemm, reduce_to};
use crate::ops::axes::{Axis, AxisLinks, LinkContext, input, output as out};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
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

    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        let equation: String = string(cx, "equation", "").ok()?.chars().filter(|c| !c.is_whitespace()).collect();
        let left = equation.split("->").next().unwrap_or("");
        // An axis may not appear twice in a term, nor be stretched.
        let plain = |t: &str| t.chars().enumerate().all(|(k, c)| c.is_alphabetic() && t.find(c) == Some(k));
        let equal = |a: &Dim, b: &Dim| a == b || a.known().is_none() || b.known().is_none();
        let mut sizes: BTreeMap<char, Dim> = BTreeMap::new();
        for (k, term) in left.split(',').enumerate() {
            for (c, d) in term.chars().zip(cx.shape(k)?) {
                if !equal(sizes.entry(c).or_insert_with(|| d.clone()), d) {
                    return None;
                }
            }
        }
        let terms = left.split(',').count();
        if terms <= 2 && left.split(',').all(plain) { rule!(forward, backward) } else { None }
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

/// An operand with its letters.
struct Term<T> {
    letters: Vec<char>,
    array: Array<T>,
}

impl<T: Element> Term<T> {
    /// Sums over letters that `keep` does not want.
    fn summed(self, keep: impl Fn(char) -> bool) -> Self {
        let kept: Vec<bool> = self.letters.iter().map(|&c| keep(c)).collect();
        let dims: Vec<usize> = self.array.dims().iter().zip(&kept).map(|(&d, &k)| if k { d } else { 1 }).collect();
        let left: Vec<usize> = self.array.dims().iter().zip(&kept).filter(|(_, k)| **k).map(|(d, _)| *d).collect();
        let array = reduce_to(self.array, &dims).reshaped(&left);
        Self { letters: self.letters.into_iter().zip(kept).filter(|(_, k)| *k).map(|(c, _)| c).collect(), array }
    }

    /// The axes in the order of `letters`; letters that it lacks have the given sizes.
    fn arranged(&self, letters: &[char], sizes: &BTreeMap<char, usize>) -> Array<T> {
        let own = View::dense(self.array.dims());
        let stride = |c: &char| self.letters.iter().position(|l| l == c).map_or(0, |k| own.strides[k]);
        let dims: Vec<usize> = letters.iter().map(|c| sizes[c]).collect();
        let view = View { dims: dims.clone(), strides: letters.iter().map(stride).collect(), offset: 0 };
        Array::new(&dims, view.read(self.array.data()))
    }
}

/// Product of two terms, with the letters of `output` kept and all others summed over.
fn contract<T: Element>(a: Term<T>, b: Term<T>, output: &[char], sizes: &BTreeMap<char, usize>) -> Term<T> {
    let (a_has, b_has) = (a.letters.clone(), b.letters.clone());
    let a = a.summed(|c| b_has.contains(&c) || output.contains(&c));
    let b = b.summed(|c| a_has.contains(&c) || output.contains(&c));
    let of =
        |f: &dyn Fn(char) -> bool, letters: &[char]| letters.iter().copied().filter(|&c| f(c)).collect::<Vec<char>>();
    let kept = |c: char| output.contains(&c);
    let batch = of(&|c| b.letters.contains(&c) && kept(c), &a.letters);
    let inner = of(&|c| b.letters.contains(&c) && !kept(c), &a.letters);
    let left = of(&|c| !b.letters.contains(&c), &a.letters);
    let right = of(&|c| !a.letters.contains(&c), &b.letters);
    let size = |letters: &[char]| letters.iter().map(|c| sizes[c]).product::<usize>();
    let (m, k, n) = (size(&left), size(&inner), size(&right));
    let x = a.arranged(&[&batch[..], &left, &inner].concat(), sizes);
    let y = b.arranged(&[&batch[..], &inner, &right].concat(), sizes);
    let letters = [&batch[..], &left, &right].concat();
    let mut z = Array::zeros(&letters.iter().map(|c| sizes[c]).collect::<Vec<_>>());
    if m * n > 0 {
        for (i, z) in z.data_mut().chunks_mut(m * n).enumerate() {
            let (x, y) = (&x.data()[i * m * k..], &y.data()[i * k * n..]);
            gemm((m, k, n), T::one(), (x, (k, 1)), (y, (n, 1)), T::zero(), (z, (n, 1)));
        }
    }
    Term { letters, array: z }
}

/// The letters of each input and of the output, and their sizes.
type Named = (Vec<Vec<char>>, Vec<char>, BTreeMap<char, usize>);

fn named(cx: &InferContext) -> Result<Named> {
    let unknown = || Error::unsupported("an equation with an ellipsis");
    let Equation { sizes, output } = read(cx)?.ok_or_else(unknown)?;
    let equation: String = string(cx, "equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    let left = equation.split("->").next().unwrap_or("").to_string();
    let terms = left.split(',').map(|t| t.chars().collect()).collect();
    let sizes: Option<BTreeMap<char, usize>> = sizes.into_iter().map(|(c, d)| Some((c, d.known()?))).collect();
    Ok((terms, output, sizes.ok_or_else(unknown)?))
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let (letters, output, sizes) = named(f.cx)?;
    let term = |k: usize| -> Result<Term<T>> { Ok(Term { letters: letters[k].clone(), array: f.float(k)?.clone() }) };
    let result: Term<T> = match letters.len() {
        1 => term(0)?,
        _ => contract(term(0)?, term(1)?, &output, &sizes),
    };
    Ok(Computed::one(result.summed(|c| output.contains(&c)).arranged(&output, &sizes)))
}

/// The gradient of one operand is the product of the output's with the other one.
fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let (letters, output, sizes) = named(b.cx)?;
    let mut grads = vec![None; b.inputs.len()];
    for k in (0..letters.len()).filter(|&k| b.wants(k)) {
        let dy = Term { letters: output.clone(), array: b.grad()?.clone() };
        let found = match letters.len() {
            1 => dy,
            _ => {
                let other = Term { letters: letters[1 - k].clone(), array: b.float(1 - k)?.clone() };
                contract(dy, other, &letters[k], &sizes)
            }
        };
        grads[k] = Some(found.arranged(&letters[k], &sizes));
    }
    Ok(grads)
}
