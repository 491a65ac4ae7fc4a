//! RNN, GRU and LSTM.

use crate::error::{Error, Result};
use crate::ir::{AttributeValue, Dim, Type};
use crate::math::{Array, Cell, CellSaved, Layer, View, cell_backward, cell_forward};
use crate::ops::axes::{AxisFact, AxisLinks, AxisMap, Kept, LinkContext, Narrowed, input, output as out};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{count, int, is_f32, string};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, StoredRole, Upgrade, op};

/// Recurrent layers.
pub struct Recurrent;

struct Sizes {
    steps: Dim,
    batch: Dim,
    directions: Dim,
    hidden: Dim,
    batch_first: bool,
}

fn sizes(cx: &InferContext) -> Result<Sizes> {
    let directions = match string(cx, "direction", "forward")? {
        "forward" | "reverse" => 1,
        "bidirectional" => 2,
        other => return Err(Error::invalid(format!("unknown direction \"{other}\""))),
    };
    let batch_first = cx.opset >= 14 && int(cx, "layout", 0)? != 0;
    let (mut steps, mut batch) = match cx.shape(0) {
        None => (Dim::Unknown, Dim::Unknown),
        Some([a, b, _]) => (a.clone(), b.clone()),
        Some(s) => return Err(Error::invalid(format!("input has rank {}, expected 3", s.len()))),
    };
    if batch_first {
        std::mem::swap(&mut steps, &mut batch);
    }
    let hidden = match int(cx, "hidden_size", 0)? {
        n if n > 0 => Dim::Known(n),
        _ => cx.shape(2).and_then(|r| r.get(2)).cloned().unwrap_or(Dim::Unknown),
    };
    Ok(Sizes { steps, batch, directions: Dim::Known(directions), hidden, batch_first })
}

/// All outputs of a recurrence, its last output, and with `cell` its last cell state.
///
/// # Errors
/// Attributes and ranks that the specification forbids.
pub fn infer(cx: &InferContext, cell: bool) -> Result<Vec<Inferred>> {
    let Sizes { steps, batch, directions, hidden, batch_first } = sizes(cx)?;
    let (sequence, last) = if batch_first {
        let last = vec![batch.clone(), directions.clone(), hidden.clone()];
        (vec![batch, steps, directions, hidden], last)
    } else {
        let last = vec![directions.clone(), batch.clone(), hidden.clone()];
        (vec![steps, directions, batch, hidden], last)
    };
    let last = Inferred::tensor(cx.elem(0), Some(last));
    let mut out = vec![Inferred::tensor(cx.elem(0), Some(sequence)), last.clone()];
    if cell {
        out.push(last);
    }
    Ok(out)
}

/// Multiply-accumulates of all steps.
pub fn macs(cx: &InferContext, gates: u64) -> Option<u64> {
    let s = sizes(cx).ok()?;
    let hidden = count(std::slice::from_ref(&s.hidden));
    let input = count(cx.shape(0)?.get(2..)?);
    let rows = count(&[s.steps, s.batch, s.directions]);
    let per_row = gates.saturating_mul(hidden).saturating_mul(hidden.saturating_add(input));
    Some(rows.saturating_mul(per_row))
}

impl OpSpec for Recurrent {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("RNN", &[1, 7, 14, 22]), op("GRU", &[1, 3, 7, 14, 22]), op("LSTM", &[1, 7, 14, 22])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        infer(cx, &*cx.node.op.op_type == "LSTM")
    }

    /// W and R: a row for each direction and gate unit. Biases and peepholes are small, and stay.
    fn stored_weights(&self, cx: &InferContext) -> Vec<StoredRole> {
        if !is_f32(cx, 0) {
            return vec![];
        }
        [1, 2].map(|slot| StoredRole { slot, rows: vec![0, 1] }).into()
    }

    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        // Sequences of several lengths, peepholes, other activations and clipping have no rule.
        let plain = !cx.present(4)
            && !cx.present(7)
            && ["activations", "activation_alpha", "activation_beta", "clip"].iter().all(|a| has_default(cx, a))
            && int(cx, "layout", 0).ok()? == 0
            && int(cx, "input_forget", 0).ok()? == 0;
        if plain && cx.opset >= 7 { rule!(forward, backward) } else { None }
    }

    fn macs(&self, cx: &InferContext, _outputs: &[Option<&Type>]) -> Option<u64> {
        let gates = match &*cx.node.op.op_type {
            "LSTM" => 4,
            "GRU" => 3,
            _ => 1,
        };
        macs(cx, gates)
    }

    fn upgrade(&self, cx: &InferContext, _to: i64) -> Upgrade {
        if cx.opset < 7 {
            return Upgrade::Impossible("its form before operator set 7 is not supported".into());
        }
        Upgrade::Same
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let batch_first = cx.cx.opset >= 14 && int(cx.cx, "layout", 0).ok()? != 0;
        let mut links = AxisLinks::default();
        links.same(input(0, 2), input(1, 2));
        // Gates lie side by side: [gates * hidden, ...], biases of both weights too.
        let gates = AxisMap::Stride { inner: 1 };
        links.link(input(1, 1), input(2, 2), gates.clone());
        links.link(input(2, 1), input(2, 2), gates.clone());
        for slot in [3, 7].into_iter().filter(|&slot| cx.cx.present(slot)) {
            links.link(input(slot, 1), input(2, 2), gates.clone());
        }
        for slot in [5, 6].into_iter().filter(|&slot| cx.cx.present(slot)) {
            links.same(input(slot, 2), input(2, 2));
        }
        if cx.out_rank(0).is_some() {
            links.same(out(0, 3), input(2, 2));
            let (steps, batch) = if batch_first { (1, 0) } else { (0, 2) };
            links.same(out(0, steps), input(0, usize::from(batch_first)));
            links.same(out(0, batch), input(0, usize::from(!batch_first)));
        }
        for slot in (1..3).filter(|&slot| cx.out_rank(slot).is_some()) {
            links.same(out(slot, 2), input(2, 2));
        }
        links.0.push(AxisFact::Takes(input(2, 2)));
        Some(links)
    }

    fn narrow(&self, cx: &LinkContext, kept: &Kept) -> Narrowed {
        match kept.of(input(2, 2)) {
            Some(hidden) => Narrowed::with_int(cx.cx.node, "hidden_size", hidden.len()),
            None => Narrowed::Same,
        }
    }
}

/// Whether the attribute is absent, or names the activations that the operator has anyway.
fn has_default(cx: &InferContext, name: &str) -> bool {
    let names: &[&str] = match &*cx.node.op.op_type {
        "LSTM" => &["Sigmoid", "Tanh", "Tanh"],
        "GRU" => &["Sigmoid", "Tanh"],
        _ => &["Tanh"],
    };
    match cx.node.attribute(name) {
        None => true,
        Some(AttributeValue::Strings(v)) => v.iter().zip(names.iter().cycle()).all(|(v, n)| v == n.as_bytes()),
        Some(_) => false,
    }
}

fn cell(cx: &InferContext) -> Result<Cell> {
    Ok(match &*cx.node.op.op_type {
        "LSTM" => Cell::Lstm,
        "GRU" => Cell::Gru { linear_before_reset: int(cx, "linear_before_reset", 0)? != 0 },
        _ => Cell::Rnn,
    })
}

/// One direction of a layer: its inputs, each `[direction, ...]` of a node's, steps in the order in which they are taken.
struct Direction<T> {
    cell: Cell,
    sizes: [usize; 4],
    reversed: bool,
    x: Vec<T>,
    w: Vec<T>,
    r: Vec<T>,
    b: Vec<T>,
    h0: Vec<T>,
    c0: Vec<T>,
}

impl<T: Element> Direction<T> {
    fn layer(&self) -> Layer<'_, T> {
        let Self { cell, sizes, x, w, r, b, h0, c0, .. } = self;
        Layer { cell: *cell, sizes: *sizes, x, w, r, b, h0, c0 }
    }

    /// `[steps, batch, width]` in the order of this direction: turning twice gives the original.
    fn turned(&self, x: &[T], width: usize) -> Vec<T> {
        let row = self.sizes[1] * width;
        if !self.reversed || row == 0 { x.to_vec() } else { x.chunks(row).rev().flatten().copied().collect() }
    }

    /// The part of `[steps, directions, batch, hidden]` that is direction `d`'s.
    fn part(&self, d: usize, directions: usize) -> View {
        let [steps, batch, _, hidden] = self.sizes;
        View::dense(&[steps, directions, batch, hidden]).cut(1, d, 1, 1)
    }
}

fn directions<T: Element>(cx: &InferContext, input: impl Fn(usize) -> Option<Array<T>>) -> Result<Vec<Direction<T>>> {
    let missing = || Error::invalid("an input is missing");
    let (x, w, r) = (input(0).ok_or_else(missing)?, input(1).ok_or_else(missing)?, input(2).ok_or_else(missing)?);
    let ([steps, batch, width], [count, _, hidden]) = (x.dims(), r.dims()) else {
        return Err(Error::invalid("its inputs are not of rank 3"));
    };
    let sizes = [*steps, *batch, *width, *hidden];
    let reverse = string(cx, "direction", "forward")? == "reverse";
    let part = |a: &Array<T>, d: usize| a.data()[d * a.len() / count..(d + 1) * a.len() / count].to_vec();
    let state = |k: usize, d: usize| input(k).map_or_else(|| vec![T::zero(); batch * hidden], |a| part(&a, d));
    let one = |d: usize| {
        let mut direction = Direction {
            cell: cell(cx)?,
            sizes,
            reversed: reverse || d == 1,
            x: vec![],
            w: part(&w, d),
            r: part(&r, d),
            b: input(3).map_or_else(Vec::new, |b| part(&b, d)),
            h0: state(5, d),
            c0: if cell(cx)? == Cell::Lstm { state(6, d) } else { vec![] },
        };
        direction.x = direction.turned(x.data(), *width);
        Ok(direction)
    };
    (0..*count).map(one).collect()
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let layers = directions(f.cx, |k| f.optional(k).cloned())?;
    let count = layers.len();
    let first = layers.first().ok_or_else(|| Error::invalid("it has no direction"))?;
    let [steps, batch, _, hidden] = first.sizes;
    let state = batch * hidden;
    let mut y = Array::zeros(&[steps, count, batch, hidden]);
    let (mut last_h, mut last_c, mut arrays) = (vec![], vec![], vec![]);
    for (d, layer) in layers.iter().enumerate() {
        let saved = cell_forward(&layer.layer());
        layer.part(d, count).add_to(y.data_mut(), &layer.turned(&saved.h[state..], hidden));
        last_h.extend_from_slice(&saved.h[steps * state..]);
        last_c.extend_from_slice(saved.c.get(steps * state..).unwrap_or_default());
        arrays.extend([saved.h, saved.c, saved.gates, saved.reset]);
    }
    let last = [count, batch, hidden];
    let mut computed = Computed::one(y).saving(arrays);
    computed.outputs.push(Some(Array::new(&last, last_h)));
    if first.cell == Cell::Lstm {
        computed.outputs.push(Some(Array::new(&last, last_c)));
    }
    Ok(computed)
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let layers = directions(b.cx, |k| b.optional(k).cloned())?;
    let grad = |k: usize| b.grads.get(k).and_then(Option::as_ref);
    let mut parts: [Vec<T>; 7] = Default::default();
    let mut dx = Array::zeros(b.float(0)?.dims());
    for (d, (layer, saved)) in layers.iter().zip(b.saved.arrays.chunks(4)).enumerate() {
        let [h, c, gates, reset] = saved else { return Err(Error::internal("states are not saved")) };
        let saved = CellSaved { h: h.clone(), c: c.clone(), gates: gates.clone(), reset: reset.clone() };
        let state = layer.sizes[1] * layer.sizes[3];
        let last = |k: usize| grad(k).map_or(&[][..], |g| &g.data()[d * state..(d + 1) * state]);
        let dy = grad(0)
            .map_or_else(Vec::new, |dy| layer.turned(&layer.part(d, layers.len()).read(dy.data()), layer.sizes[3]));
        let found = cell_backward(&layer.layer(), &saved, &dy, last(1), last(2));
        let turned = layer.turned(&found.x, layer.sizes[2]);
        dx.data_mut().iter_mut().zip(turned).for_each(|(a, b)| *a += b);
        for (slot, part) in [(1, found.w), (2, found.r), (3, found.b), (5, found.h0), (6, found.c0)] {
            parts[slot].extend(part);
        }
    }
    let mut grads: Gradients<T> = vec![None; b.inputs.len()];
    for (slot, part) in parts.into_iter().enumerate().filter(|(k, _)| b.wants(*k)) {
        grads[slot] = Some(if slot == 0 { dx.clone() } else { Array::new(b.float(slot)?.dims(), part) });
    }
    Ok(grads)
}
