//! LSTM, GRU and RNN.

use super::super::custom::{Fact, Kernel};
use super::common::{concrete, fact, flag, i64s, int, text};
use super::layout::{optional, required};
use super::recurrent_cell::{Activation, Cell, Rule, State, round_to_8_bits};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::tract_ndarray::{
    Array1, Array2, Array3, Array4, ArrayView2, Axis, Ix2, Ix3, LinalgScalar, s,
};
use tract_onnx::tract_hir::internal::tract_num_traits::Float;
use tract_onnx::tract_hir::internal::*;

/// `LSTM`, `GRU` or `RNN` (specification: versions 7 to 22) in any direction and layout, with sequence lengths, peepholes,
/// clipping and other activations, none of which tract has. In f32, or in f64 where the input is.
#[derive(Debug)]
pub(super) struct Recurrent {
    rule: Rule,
    /// For each direction, whether it runs backward.
    backward: Vec<bool>,
    /// Of each direction.
    activations: Vec<Vec<Activation>>,
    clip: Option<f64>,
    /// Whether the batch is the first axis.
    batch_first: bool,
    /// Whether inputs and outputs are rounded to 8 bits before they are multiplied.
    dynamic: bool,
}

impl Recurrent {
    pub(super) fn parse(node: &NodeProto, op: &str) -> TractResult<Self> {
        let backward = match &*text(node, "direction", "forward")? {
            "forward" => vec![false],
            "reverse" => vec![true],
            "bidirectional" => vec![false, true],
            other => bail!("direction \"{other}\""),
        };
        let rule = match op {
            "LSTM" => Rule::Lstm { coupled: flag(node, "input_forget")? },
            "GRU" => Rule::Gru { linear_before_reset: flag(node, "linear_before_reset")? },
            _ => Rule::Rnn,
        };
        for unread in ["activation_alpha", "activation_beta"] {
            ensure!(node.attribute.iter().all(|a| a.name != unread), "its attribute {unread}");
        }
        let default = rule.default_activations();
        let names: Option<TVec<String>> = node.get_attr_opt_tvec("activations")?;
        let names = names.unwrap_or_else(|| backward.iter().flat_map(|_| default).map(|s| s.to_string()).collect());
        ensure!(names.len() == default.len() * backward.len(), "activations {names:?}");
        let parsed: Vec<Activation> = names.iter().map(|n| Activation::parse(n)).collect::<TractResult<_>>()?;
        let activations = parsed.chunks_exact(default.len()).map(<[_]>::to_vec).collect();
        let clip: Option<f32> = node.get_attr_opt("clip")?;
        ensure!(clip.is_none_or(|c| c > 0.0), "clip {clip:?}");
        let batch_first = int(node, "layout", 0)? != 0;
        Ok(Self { rule, backward, activations, clip: clip.map(f64::from), batch_first, dynamic: false })
    }

    /// `DynamicQuantizeLSTM` of ONNX Runtime, given its weights in float: the input is rounded as a whole, the state in
    /// every step. (There, batches on several threads may be rounded in parts.)
    pub(super) fn parse_dynamic(node: &NodeProto) -> TractResult<Self> {
        Ok(Self { dynamic: true, ..Self::parse(node, "LSTM")? })
    }

    /// Steps, batch, inputs, hidden units.
    fn sizes(&self, x: &[usize], w: &[usize], r: &[usize]) -> TractResult<[usize; 4]> {
        let (&[first, second, inputs], &[dw, gates, wi], &[dr, same, hidden]) = (x, w, r) else {
            bail!("shapes {x:?}, {w:?}, {r:?}");
        };
        let fits = dw == self.backward.len() && dr == dw && same == gates && wi == inputs;
        ensure!(fits && gates == self.rule.gates() * hidden, "shapes {x:?}, {w:?}, {r:?}");
        Ok(if self.batch_first { [second, first, inputs, hidden] } else { [first, second, inputs, hidden] })
    }

    fn shapes(&self, [steps, batch, _, hidden]: [usize; 4]) -> (TVec<usize>, TVec<usize>) {
        let directions = self.backward.len();
        match self.batch_first {
            true => (tvec![batch, steps, directions, hidden], tvec![batch, directions, hidden]),
            false => (tvec![steps, directions, batch, hidden], tvec![directions, batch, hidden]),
        }
    }
}

impl Kernel for Recurrent {
    fn name(&self) -> &'static str {
        self.rule.name()
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let (x, w, r) = (required(inputs, 0)?, required(inputs, 1)?, required(inputs, 2)?);
        let sizes = self.sizes(&concrete(&x.shape)?, &concrete(&w.shape)?, &concrete(&r.shape)?)?;
        let (all, last) = self.shapes(sizes);
        let mut facts = tvec![fact(x.dtype, &all), fact(x.dtype, &last)];
        if matches!(self.rule, Rule::Lstm { .. }) {
            facts.push(fact(x.dtype, &last));
        }
        Ok(facts)
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        match required(inputs, 0)?.datum_type() {
            DatumType::F64 => self.compute::<f64>(inputs),
            DatumType::F32 | DatumType::F16 => self.compute::<f32>(inputs),
            other => bail!("a recurrence in {other:?}"),
        }
    }
}

/// Three axes, with the sequence first.
fn sequence<T: Datum>(t: &Tensor, swap: bool) -> TractResult<Array3<T>> {
    let t = t.cast_to::<T>()?;
    let mut x = t.to_plain_array_view::<T>()?.into_dimensionality::<Ix3>()?;
    if swap {
        x.swap_axes(0, 1);
    }
    Ok(x.to_owned())
}

impl Recurrent {
    fn compute<T: Datum + Float + LinalgScalar>(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let (x, w, r) = (required(inputs, 0)?, required(inputs, 1)?, required(inputs, 2)?);
        let sizes @ [steps, batch, _, hidden] = self.sizes(x.shape(), w.shape(), r.shape())?;
        let (directions, gates) = (self.backward.len(), self.rule.gates());
        let dtype = x.datum_type();
        let lengths = match optional(inputs, 4) {
            Some(lengths) => i64s(lengths)?.into_iter().map(usize::try_from).collect::<Result<_, _>>()?,
            None => vec![steps; batch],
        };
        ensure!(lengths.len() == batch && lengths.iter().all(|&n| n <= steps), "lengths {lengths:?} of {steps} steps");
        let vector = |slot: usize, len: usize| -> TractResult<Option<Array2<T>>> {
            let Some(t) = optional(inputs, slot) else { return Ok(None) };
            ensure!(t.shape() == [directions, len], "input {slot} of shape {:?}", t.shape());
            let t = t.cast_to::<T>()?;
            Ok(Some(t.to_plain_array_view::<T>()?.into_dimensionality::<Ix2>()?.to_owned()))
        };
        let initial = |slot: usize| -> TractResult<Array3<T>> {
            let Some(t) = optional(inputs, slot) else { return Ok(Array3::zeros((directions, batch, hidden))) };
            let state = sequence::<T>(t, self.batch_first)?;
            ensure!(state.shape() == [directions, batch, hidden], "input {slot} of shape {:?}", t.shape());
            Ok(state)
        };
        let lstm = matches!(self.rule, Rule::Lstm { .. });
        let bias = vector(3, 2 * gates * hidden)?;
        let peepholes = if lstm { vector(7, 3 * hidden)? } else { None };
        let (mut h, mut c) = (initial(5)?, if lstm { initial(6)? } else { Array3::zeros((directions, batch, hidden)) });
        let mut x = sequence::<T>(x, self.batch_first)?;
        if self.dynamic {
            let line = round_to_8_bits(&mut x.iter().copied());
            x.mapv_inplace(line);
        }
        let (w, r) = (sequence::<T>(w, false)?, sequence::<T>(r, false)?);
        let mut y = Array4::<T>::zeros((steps, directions, batch, hidden));
        for d in 0..directions {
            let row = |m: &Option<Array2<T>>| m.as_ref().map(|m| m.row(d).to_owned());
            let cell = Cell {
                rule: self.rule,
                activations: &self.activations[d],
                clip: self.clip.map(|c| T::from(c).context("clip")).transpose()?,
                w: w.index_axis(Axis(0), d),
                r: r.index_axis(Axis(0), d),
                bias: row(&bias),
                peepholes: row(&peepholes),
                dynamic: self.dynamic,
            };
            for (b, &length) in lengths.iter().enumerate() {
                let state = State { h: h.slice(s![d, b, ..]).to_owned(), c: c.slice(s![d, b, ..]).to_owned() };
                let line: ArrayView2<T> = x.slice(s![..length, b, ..]);
                let state = cell.run(line, state, self.backward[d], |t, h: &Array1<T>| {
                    y.slice_mut(s![t, d, b, ..]).assign(h);
                })?;
                h.slice_mut(s![d, b, ..]).assign(&state.h);
                c.slice_mut(s![d, b, ..]).assign(&state.c);
            }
        }
        if self.batch_first {
            // From steps, directions, batch to batch, steps, directions.
            y = y.permuted_axes([2, 0, 1, 3]);
            h.swap_axes(0, 1);
            c.swap_axes(0, 1);
        }
        let (all, last) = self.shapes(sizes);
        let tensor = |values: Vec<T>, shape: &[usize]| super::common::narrowed(dtype, shape, &values);
        let mut out = tvec![tensor(y.iter().copied().collect(), &all)?, tensor(h.iter().copied().collect(), &last)?,];
        if lstm {
            out.push(tensor(c.iter().copied().collect(), &last)?);
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rnn(backward: bool) -> Recurrent {
        Recurrent {
            rule: Rule::Rnn,
            backward: vec![backward],
            activations: vec![vec![Activation::parse("Relu").unwrap()]],
            clip: None,
            batch_first: false,
            dynamic: false,
        }
    }

    #[test]
    fn backward_starts_at_the_end_of_each_sequence() {
        let x = Tensor::from_shape(&[3, 2, 1], &[1f32, 1.0, 2.0, 2.0, 4.0, 4.0]).unwrap();
        let one = Tensor::from_shape(&[1, 1, 1], &[1f32]).unwrap();
        let ten = Tensor::from_shape(&[1, 1, 1], &[10f32]).unwrap();
        let lengths = tensor1(&[3i32, 2]);
        let out = rnn(true).eval(&[Some(&x), Some(&one), Some(&ten), None, Some(&lengths)]).unwrap();
        let want = Tensor::from_shape(&[3, 1, 2, 1], &[421f32, 21.0, 42.0, 2.0, 4.0, 0.0]).unwrap();
        assert_eq!(out[0], want);
        assert_eq!(out[1], Tensor::from_shape(&[1, 2, 1], &[421f32, 21.0]).unwrap());
    }

    #[test]
    fn shapes_and_lengths_are_checked() {
        let x = Tensor::from_shape(&[1, 1, 2], &[1f32, 1.0]).unwrap();
        let one = Tensor::from_shape(&[1, 1, 1], &[1f32]).unwrap();
        assert!(rnn(false).eval(&[Some(&x), Some(&one), Some(&one)]).is_err());
        let long = tensor1(&[2i32]);
        assert!(rnn(false).eval(&[Some(&one), Some(&one), Some(&one), None, Some(&long)]).is_err());
        let none = Tensor::zero::<f32>(&[0, 1, 1]).unwrap();
        let out = rnn(false).eval(&[Some(&none), Some(&one), Some(&one)]).unwrap();
        assert_eq!((out[0].shape(), out[1].len()), (&[0usize, 1, 1, 1][..], 1));
    }
}
