//! Recurrent layers in one direction: RNN, GRU and LSTM with their default activations (specification: RNN, GRU, LSTM).
//!
//! Gates are in the specification's order: GRU z, r, h; LSTM i, o, f, c.

use super::{Real, matmul};

/// Which recurrence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cell {
    /// `h = tanh(x W + h R + b)`.
    Rnn,
    /// Gated recurrent unit; whether the reset gate acts after the product with `R`.
    Gru {
        /// The specification's `linear_before_reset`.
        linear_before_reset: bool,
    },
    /// Long short-term memory.
    Lstm,
}

impl Cell {
    /// Number of gates.
    pub fn gates(self) -> usize {
        match self {
            Cell::Rnn => 1,
            Cell::Gru { .. } => 3,
            Cell::Lstm => 4,
        }
    }
}

/// Sizes and inputs of a layer. Sequences are `[steps, batch, ...]`.
#[derive(Clone, Copy)]
pub struct Layer<'a, T> {
    /// The recurrence.
    pub cell: Cell,
    /// Steps, batch, input size, hidden size.
    pub sizes: [usize; 4],
    /// `[steps, batch, input]`.
    pub x: &'a [T],
    /// `[gates * hidden, input]`.
    pub w: &'a [T],
    /// `[gates * hidden, hidden]`.
    pub r: &'a [T],
    /// `[2 * gates * hidden]`: those of `W`, then those of `R`; empty for none.
    pub b: &'a [T],
    /// `[batch, hidden]`.
    pub h0: &'a [T],
    /// `[batch, hidden]`, for LSTM.
    pub c0: &'a [T],
}

/// What the forward pass computed.
pub struct CellSaved<T> {
    /// Hidden states, the initial one first: `[steps + 1, batch, hidden]`.
    pub h: Vec<T>,
    /// Cell states of LSTM, the initial one first.
    pub c: Vec<T>,
    /// Gates after their activations: `[steps, batch, gates * hidden]`.
    pub gates: Vec<T>,
    /// GRU: what the reset gate multiplies, `[steps, batch, hidden]`.
    pub reset: Vec<T>,
}

/// Gradients of the inputs.
pub struct CellGrads<T> {
    /// As [`Layer::x`].
    pub x: Vec<T>,
    /// As [`Layer::w`].
    pub w: Vec<T>,
    /// As [`Layer::r`].
    pub r: Vec<T>,
    /// As [`Layer::b`], of full length.
    pub b: Vec<T>,
    /// As [`Layer::h0`].
    pub h0: Vec<T>,
    /// As [`Layer::c0`].
    pub c0: Vec<T>,
}

fn sigmoid<T: Real>(x: T) -> T {
    T::one() / (T::one() + (-x).exp())
}

/// `[rows, inner] x [columns, inner]^T`.
fn project<T: Real>(rows: usize, inner: usize, a: &[T], w: &[T], columns: usize) -> Vec<T> {
    let mut out = vec![T::zero(); rows * columns];
    matmul((rows, inner, columns), T::one(), (a, (inner, 1)), (w, (1, inner)), T::zero(), &mut out);
    out
}

/// Runs the layer.
pub fn cell_forward<T: Real>(layer: &Layer<T>) -> CellSaved<T> {
    let [steps, batch, input, hidden] = layer.sizes;
    let (g, state) = (layer.cell.gates(), batch * hidden);
    let wide = g * hidden;
    let from_x = project(steps * batch, input, layer.x, layer.w, wide);
    let bias = |k: usize| layer.b.get(k).copied().unwrap_or_default();
    let mut saved = CellSaved { h: layer.h0.to_vec(), c: layer.c0.to_vec(), gates: vec![], reset: vec![] };
    for s in 0..steps {
        let h = saved.h[s * state..].to_vec();
        let from_h = project(batch, hidden, &h, layer.r, wide);
        let x = |b: usize, k: usize| from_x[(s * batch + b) * wide + k] + bias(k);
        let hr = |b: usize, k: usize| from_h[b * wide + k] + bias(wide + k);
        let base = saved.gates.len();
        saved.gates.resize(base + batch * wide, T::zero());
        let gates = &mut saved.gates[base..];
        match layer.cell {
            Cell::Rnn => {
                (0..state).for_each(|i| gates[i] = (x(i / hidden, i % hidden) + hr(i / hidden, i % hidden)).tanh())
            }
            Cell::Lstm => {
                for b in 0..batch {
                    for k in 0..wide {
                        let a = x(b, k) + hr(b, k);
                        gates[b * wide + k] = if k < 3 * hidden { sigmoid(a) } else { a.tanh() };
                    }
                }
            }
            Cell::Gru { linear_before_reset } => {
                for b in 0..batch {
                    (0..2 * hidden).for_each(|k| gates[b * wide + k] = sigmoid(x(b, k) + hr(b, k)));
                }
                let r = |gates: &[T], b: usize, k: usize| gates[b * wide + hidden + k];
                let mut reset: Vec<T> = (0..state).map(|i| hr(i / hidden, 2 * hidden + i % hidden)).collect();
                let mut products = vec![];
                if !linear_before_reset {
                    reset.copy_from_slice(&h[..state]);
                    let scaled: Vec<T> = (0..state).map(|i| r(gates, i / hidden, i % hidden) * h[i]).collect();
                    products = project(batch, hidden, &scaled, &layer.r[2 * hidden * hidden..], hidden);
                }
                for (i, &reset) in reset.iter().enumerate() {
                    let (b, k) = (i / hidden, i % hidden);
                    let recurrent = match products.get(i) {
                        Some(&p) => p + bias(wide + 2 * hidden + k),
                        None => r(gates, b, k) * reset,
                    };
                    gates[b * wide + 2 * hidden + k] = (x(b, 2 * hidden + k) + recurrent).tanh();
                }
                saved.reset.extend(reset);
            }
        }
        let gates = &saved.gates[base..];
        let gate = |i: usize, j: usize| gates[i / hidden * wide + j * hidden + i % hidden];
        match layer.cell {
            Cell::Rnn => saved.h.extend_from_slice(&gates[..state]),
            Cell::Gru { .. } => {
                let next = |i: usize| (T::one() - gate(i, 0)) * gate(i, 2) + gate(i, 0) * h[i];
                saved.h.extend((0..state).map(next));
            }
            Cell::Lstm => {
                let c: Vec<T> =
                    (0..state).map(|i| gate(i, 2) * saved.c[s * state + i] + gate(i, 0) * gate(i, 3)).collect();
                saved.h.extend((0..state).map(|i| gate(i, 1) * c[i].tanh()));
                saved.c.extend(c);
            }
        }
    }
    saved
}

/// Gradients from those of the sequence `dy` (`[steps, batch, hidden]`), of the last hidden state and of the last cell
/// state; empty slices for none.
pub fn cell_backward<T: Real>(
    layer: &Layer<T>,
    saved: &CellSaved<T>,
    dy: &[T],
    dh_last: &[T],
    dc_last: &[T],
) -> CellGrads<T> {
    let [steps, batch, input, hidden] = layer.sizes;
    let (wide, state, one) = (layer.cell.gates() * hidden, batch * hidden, T::one());
    let or_zero = |v: &[T], n: usize| if v.is_empty() { vec![T::zero(); n] } else { v.to_vec() };
    let (mut dh, mut dc) = (or_zero(dh_last, state), or_zero(dc_last, state));
    // Gradients before the activations: of what comes from `x`, and of what comes from `h` (they differ in GRU only).
    let (mut da_x, mut da_h) = (vec![T::zero(); steps * batch * wide], vec![T::zero(); steps * batch * wide]);
    let mut dr = vec![T::zero(); wide * hidden];
    for s in (0..steps).rev() {
        if !dy.is_empty() {
            dh.iter_mut().zip(&dy[s * state..]).for_each(|(a, &b)| *a += b);
        }
        let h = &saved.h[s * state..][..state];
        let gates = &saved.gates[s * batch * wide..][..batch * wide];
        let (dx, dr_in) =
            (&mut da_x[s * batch * wide..][..batch * wide], &mut da_h[s * batch * wide..][..batch * wide]);
        let at = |i: usize, j: usize| i / hidden * wide + j * hidden + i % hidden;
        let mut dh_prev = vec![T::zero(); state];
        let mut reset_h = None;
        match layer.cell {
            Cell::Rnn => (0..state).for_each(|i| dx[i] = dh[i] * (one - gates[i] * gates[i])),
            Cell::Lstm => {
                for i in 0..state {
                    let [gi, o, f, c] = [0, 1, 2, 3].map(|j| gates[at(i, j)]);
                    let t = saved.c[(s + 1) * state + i].tanh();
                    let d = dc[i] + dh[i] * o * (one - t * t);
                    dx[at(i, 0)] = d * c * gi * (one - gi);
                    dx[at(i, 1)] = dh[i] * t * o * (one - o);
                    dx[at(i, 2)] = d * saved.c[s * state + i] * f * (one - f);
                    dx[at(i, 3)] = d * gi * (one - c * c);
                    dc[i] = d * f;
                }
            }
            Cell::Gru { linear_before_reset } => {
                let reset = &saved.reset[s * state..][..state];
                for i in 0..state {
                    let (z, hh) = (gates[at(i, 0)], gates[at(i, 2)]);
                    dx[at(i, 0)] = dh[i] * (h[i] - hh) * z * (one - z);
                    dx[at(i, 2)] = dh[i] * (one - z) * (one - hh * hh);
                    dh_prev[i] = dh[i] * z;
                }
                // Gradient of what the reset gate makes: its product with `reset`, or that product's product with `R`.
                let mut made: Vec<T> = (0..state).map(|i| dx[at(i, 2)]).collect();
                if !linear_before_reset {
                    let mut through = vec![T::zero(); state];
                    let rh = &layer.r[2 * hidden * hidden..];
                    matmul(
                        (batch, hidden, hidden),
                        one,
                        (&made, (hidden, 1)),
                        (rh, (hidden, 1)),
                        T::zero(),
                        &mut through,
                    );
                    made = through;
                }
                for i in 0..state {
                    let r = gates[at(i, 1)];
                    dx[at(i, 1)] = made[i] * reset[i] * r * (one - r);
                    if !linear_before_reset {
                        dh_prev[i] += made[i] * r;
                    }
                }
                dr_in.copy_from_slice(dx);
                if linear_before_reset {
                    (0..state).for_each(|i| dr_in[at(i, 2)] = dx[at(i, 2)] * gates[at(i, 1)]);
                } else {
                    reset_h = Some((0..state).map(|i| gates[at(i, 1)] * h[i]).collect::<Vec<T>>());
                }
            }
        }
        if !matches!(layer.cell, Cell::Gru { .. }) {
            dr_in.copy_from_slice(dx);
        }
        // The hidden gate of a GRU that resets before the product saw `r * h`, and has passed its gradient on above.
        let through = if reset_h.is_some() { 2 * hidden } else { wide };
        let (a, r) = ((&dr_in[..], (wide, 1)), (layer.r, (hidden, 1)));
        matmul((batch, through, hidden), one, a, r, one, &mut dh_prev);
        matmul((through, batch, hidden), one, (dr_in, (1, wide)), (h, (hidden, 1)), one, &mut dr[..through * hidden]);
        if let Some(reset_h) = reset_h {
            let (a, b) = ((&dr_in[2 * hidden..], (1, wide)), (&reset_h[..], (hidden, 1)));
            matmul((hidden, batch, hidden), one, a, b, one, &mut dr[2 * hidden * hidden..]);
        }
        dh = dh_prev;
    }
    let rows = steps * batch;
    let mut grads = CellGrads {
        x: vec![T::zero(); rows * input],
        w: vec![T::zero(); wide * input],
        r: dr,
        b: vec![T::zero(); 2 * wide],
        h0: dh,
        c0: dc,
    };
    matmul((rows, wide, input), one, (&da_x, (wide, 1)), (layer.w, (input, 1)), T::zero(), &mut grads.x);
    matmul((wide, rows, input), one, (&da_x, (1, wide)), (layer.x, (input, 1)), T::zero(), &mut grads.w);
    for (db, da) in grads.b.chunks_mut(wide.max(1)).zip([&da_x, &da_h]) {
        da.chunks(wide).for_each(|row| db.iter_mut().zip(row).for_each(|(b, &a)| *b += a));
    }
    grads
}
