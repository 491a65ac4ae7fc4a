//! One step after another of a recurrence.

use tract_onnx::tract_hir::internal::tract_ndarray::{Array1, ArrayView1, ArrayView2, Axis, LinalgScalar, Zip, s};
use tract_onnx::tract_hir::internal::tract_num_traits::Float;
use tract_onnx::tract_hir::internal::*;

/// Which recurrence.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// `coupled`: the forget gate is one minus the input gate.
    Lstm {
        coupled: bool,
    },
    Gru {
        linear_before_reset: bool,
    },
    Rnn,
}

impl Rule {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lstm { .. } => "LSTM",
            Self::Gru { .. } => "GRU",
            Self::Rnn => "RNN",
        }
    }

    pub(super) fn gates(self) -> usize {
        match self {
            Self::Lstm { .. } => 4,
            Self::Gru { .. } => 3,
            Self::Rnn => 1,
        }
    }

    pub(super) fn default_activations(self) -> &'static [&'static str] {
        match self {
            Self::Lstm { .. } => &["Sigmoid", "Tanh", "Tanh"],
            Self::Gru { .. } => &["Sigmoid", "Tanh"],
            Self::Rnn => &["Tanh"],
        }
    }
}

/// A function of one number, with its default parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Activation {
    Sigmoid,
    Tanh,
    Relu,
    Softsign,
    HardSigmoid,
}

impl Activation {
    pub(super) fn parse(name: &str) -> TractResult<Self> {
        Ok(match name {
            "Sigmoid" => Self::Sigmoid,
            "Tanh" => Self::Tanh,
            "Relu" => Self::Relu,
            "Softsign" => Self::Softsign,
            "HardSigmoid" => Self::HardSigmoid,
            other => bail!("the activation {other}"),
        })
    }

    fn of<T: Float>(self, x: T) -> T {
        let (one, zero) = (T::one(), T::zero());
        match self {
            Self::Sigmoid => one / (one + (-x).exp()),
            Self::Tanh => x.tanh(),
            Self::Relu => {
                if x < zero {
                    zero
                } else {
                    x
                }
            }
            Self::Softsign => x / (one + x.abs()),
            // 0.2 x + 0.5, within 0 and 1.
            Self::HardSigmoid => {
                let five = one + one + one + one + one;
                let y = x / five + one / (one + one);
                if y < zero {
                    zero
                } else if y > one {
                    one
                } else {
                    y
                }
            }
        }
    }
}

/// The weights of one direction.
pub(super) struct Cell<'a, T> {
    pub(super) rule: Rule,
    pub(super) activations: &'a [Activation],
    pub(super) clip: Option<T>,
    /// Gates times hidden units, by inputs.
    pub(super) w: ArrayView2<'a, T>,
    /// Gates times hidden units, by hidden units.
    pub(super) r: ArrayView2<'a, T>,
    /// Of the input, then of the recurrence.
    pub(super) bias: Option<Array1<T>>,
    /// Of the input, output and forget gates.
    pub(super) peepholes: Option<Array1<T>>,
    /// Whether outputs are rounded to 8 bits before the next step multiplies them.
    pub(super) dynamic: bool,
}

/// The rounding of DynamicQuantizeLinear over these numbers: to one of 256 levels of a range that holds zero.
pub(super) fn round_to_8_bits<T: Float>(data: &mut dyn Iterator<Item = T>) -> impl Fn(T) -> T + use<T> {
    let zero = T::zero();
    let (low, high) = data.fold((zero, zero), |(low, high), x| (low.min(x), high.max(x)));
    let most = T::from(255.0).unwrap_or_else(T::one);
    let scale = if high > low { (high - low) / most } else { T::one() };
    let zero_point = even((-low / scale).max(zero).min(most));
    move |x| (even(x / scale + zero_point).max(zero).min(most) - zero_point) * scale
}

/// Rounds halves to even.
fn even<T: Float>(x: T) -> T {
    let two = T::one() + T::one();
    let up = x.round();
    if (x - x.trunc()).abs() == T::one() / two { (x / two).round() * two } else { up }
}

/// What one step hands to the next.
pub(super) struct State<T> {
    pub(super) h: Array1<T>,
    /// The cell of an LSTM.
    pub(super) c: Array1<T>,
}

impl<T: Float + LinalgScalar> Cell<'_, T> {
    /// All steps of one sequence (steps by inputs); `keep` gets each step's output.
    pub(super) fn run(
        &self,
        x: ArrayView2<T>,
        mut state: State<T>,
        backward: bool,
        mut keep: impl FnMut(usize, &Array1<T>),
    ) -> TractResult<State<T>> {
        let mut from_input = x.dot(&self.w.t());
        let width = self.w.nrows();
        if let Some(bias) = &self.bias {
            from_input = from_input + bias.slice(s![..width]);
        }
        let steps = x.nrows();
        for k in 0..steps {
            let t = if backward { steps - 1 - k } else { k };
            let from_input = from_input.index_axis(Axis(0), t);
            match self.rule {
                Rule::Lstm { coupled } => self.lstm(from_input, &mut state, coupled),
                Rule::Gru { linear_before_reset } => self.gru(from_input, &mut state, linear_before_reset),
                Rule::Rnn => {
                    let sum = &from_input + &self.recurred(&state.h, 0..width);
                    state.h = self.gate(sum, 0);
                }
            }
            keep(t, &state.h);
        }
        Ok(state)
    }

    /// The part of the sums that comes from the last output, with its bias.
    fn recurred(&self, h: &Array1<T>, rows: std::ops::Range<usize>) -> Array1<T> {
        let rounded = self.dynamic.then(|| h.mapv(round_to_8_bits(&mut h.iter().copied())));
        let sum = self.r.slice(s![rows.clone(), ..]).dot(rounded.as_ref().unwrap_or(h));
        match &self.bias {
            Some(bias) => {
                let width = self.w.nrows();
                sum + bias.slice(s![width + rows.start..width + rows.end])
            }
            None => sum,
        }
    }

    /// Clips, and applies an activation.
    fn gate(&self, sum: Array1<T>, activation: usize) -> Array1<T> {
        let f = self.activations[activation];
        sum.mapv_into(|x| {
            f.of(self.clip.map_or(x, |c| {
                if x > c {
                    c
                } else if x < -c {
                    -c
                } else {
                    x
                }
            }))
        })
    }

    fn lstm(&self, from_input: ArrayView1<T>, state: &mut State<T>, coupled: bool) {
        let n = state.h.len();
        let sums = &from_input + &self.recurred(&state.h, 0..4 * n);
        // In the order of the weights: input, output, forget, cell.
        let part = |k: usize| sums.slice(s![k * n..(k + 1) * n]).to_owned();
        let peephole = |k: usize, c: &Array1<T>| match &self.peepholes {
            Some(p) => part(k) + &(&p.slice(s![k * n..(k + 1) * n]) * c),
            None => part(k),
        };
        let input = self.gate(peephole(0, &state.c), 0);
        let forget = if coupled { input.mapv(|x| T::one() - x) } else { self.gate(peephole(2, &state.c), 0) };
        let candidate = self.gate(part(3), 1);
        state.c = forget * &state.c + input * candidate;
        let output = self.gate(peephole(1, &state.c), 0);
        let h = self.activations[2];
        state.h = output * state.c.mapv(|x| h.of(x));
    }

    fn gru(&self, from_input: ArrayView1<T>, state: &mut State<T>, linear_before_reset: bool) {
        let n = state.h.len();
        let sums = &from_input.slice(s![..2 * n]) + &self.recurred(&state.h, 0..2 * n);
        let update = self.gate(sums.slice(s![..n]).to_owned(), 0);
        let reset = self.gate(sums.slice(s![n..]).to_owned(), 0);
        let recurred = match linear_before_reset {
            true => reset * self.recurred(&state.h, 2 * n..3 * n),
            false => self.recurred(&(reset * &state.h), 2 * n..3 * n),
        };
        let candidate = self.gate(&from_input.slice(s![2 * n..]) + &recurred, 1);
        Zip::from(&mut state.h).and(&update).and(&candidate).for_each(|h, &z, &new| *h = (T::one() - z) * new + z * *h);
    }
}
