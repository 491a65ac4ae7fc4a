//! LinearAttention.

use super::super::custom::{Fact, Kernel};
use super::common::{concrete, f32s, fact, int, narrowed, text};
use super::layout::{optional, required};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `LinearAttention` (specification: version 27), one step of the recurrence after the other, in f32.
#[derive(Debug)]
pub(super) struct LinearAttention {
    heads: usize,
    groups: usize,
    scale: f32,
    gated: bool,
    delta: bool,
}

/// The shapes of one call.
struct Sizes {
    batch: usize,
    steps: usize,
    depth: usize,
    width: usize,
}

impl LinearAttention {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let (heads, groups) = (int(node, "q_num_heads", 0)?, int(node, "kv_num_heads", 0)?);
        ensure!(groups > 0 && heads > 0 && heads % groups == 0, "{heads} heads of queries for {groups} of keys");
        let (gated, delta) = match &*text(node, "update_rule", "gated_delta")? {
            "linear" => (false, false),
            "gated" => (true, false),
            "delta" => (false, true),
            "gated_delta" => (true, true),
            other => bail!("update_rule \"{other}\""),
        };
        let scale = node.get_attr_opt("scale")?.unwrap_or(0.0);
        Ok(Self { heads: usize::try_from(heads)?, groups: usize::try_from(groups)?, scale, gated, delta })
    }

    fn sizes(&self, q: &[usize], k: &[usize], v: &[usize]) -> TractResult<Sizes> {
        let (&[batch, steps, hidden], &[kb, ks, keys], &[vb, vs, values]) = (q, k, v) else {
            bail!("shapes {q:?}, {k:?}, {v:?}");
        };
        let (depth, width) = (hidden / self.heads, values / self.groups);
        let fits = hidden % self.heads == 0 && keys == depth * self.groups && values % self.groups == 0;
        ensure!(fits && (kb, ks, vb, vs) == (batch, steps, batch, steps), "shapes {q:?}, {k:?}, {v:?}");
        Ok(Sizes { batch, steps, depth, width })
    }

    /// An optional input whose last axis is one of `widths` columns per head, which the update rule needs or forbids.
    fn gate(&self, input: Option<&Tensor>, needed: bool, s: &Sizes, widths: &[usize]) -> TractResult<Option<Gate>> {
        ensure!(input.is_some() == needed, "a gate that the update rule does not have, or has");
        let Some(input) = input else { return Ok(None) };
        let &[b, t, columns] = input.shape() else { bail!("a gate of shape {:?}", input.shape()) };
        ensure!((b, t) == (s.batch, s.steps) && widths.contains(&columns), "a gate of shape {:?}", input.shape());
        Ok(Some(Gate { values: f32s(input)?, columns }))
    }
}

/// Decay or update rate.
struct Gate {
    values: Vec<f32>,
    columns: usize,
}

impl Gate {
    /// For a row (batch and step), a head out of `heads`, and a place in the head out of `depth`.
    fn at(&self, row: usize, (head, heads): (usize, usize), (place, depth): (usize, usize)) -> f32 {
        let column = match self.columns {
            1 => 0,
            c if c == heads => head,
            _ => head * depth + place,
        };
        self.values[row * self.columns + column]
    }
}

impl Kernel for LinearAttention {
    fn name(&self) -> &'static str {
        "LinearAttention"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let (q, k, v) = (required(inputs, 0)?, required(inputs, 1)?, required(inputs, 2)?);
        let s = self.sizes(&concrete(&q.shape)?, &concrete(&k.shape)?, &concrete(&v.shape)?)?;
        let state = optional(inputs, 3).map_or(q.dtype, |p| p.dtype);
        let y = fact(q.dtype, &[s.batch, s.steps, self.heads * s.width]);
        Ok(tvec![y, fact(state, &[s.batch, self.groups, s.depth, s.width])])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let (q, k, v) = (required(inputs, 0)?, required(inputs, 1)?, required(inputs, 2)?);
        let s = self.sizes(q.shape(), k.shape(), v.shape())?;
        let (groups, depth, width) = (self.groups, s.depth, s.width);
        let past = optional(inputs, 3);
        let state_type = past.map_or(q.datum_type(), |p| p.datum_type());
        let state_shape = [s.batch, groups, depth, width];
        let mut state = match past {
            Some(past) => {
                ensure!(past.shape() == state_shape, "a state of shape {:?}", past.shape());
                f32s(past)?
            }
            None => vec![0.0; state_shape.iter().product()],
        };
        let decay = self.gate(optional(inputs, 4), self.gated, &s, &[groups, groups * depth])?;
        let rate = self.gate(optional(inputs, 5), self.delta, &s, &[groups, 1])?;
        let dtype = q.datum_type();
        let (q, k, v) = (f32s(q)?, f32s(k)?, f32s(v)?);
        let scale = if self.scale == 0.0 { 1.0 / (depth as f32).sqrt() } else { self.scale };
        let mut y = vec![0f32; s.batch * s.steps * self.heads * width];
        for row in 0..s.batch * s.steps {
            let b = row / s.steps;
            for g in 0..groups {
                let state = &mut state[(b * groups + g) * depth * width..][..depth * width];
                let k = &k[(row * groups + g) * depth..][..depth];
                let mut v = v[(row * groups + g) * width..][..width].to_vec();
                if let Some(decay) = &decay {
                    for (d, line) in state.chunks_exact_mut(width.max(1)).enumerate() {
                        let factor = decay.at(row, (g, groups), (d, depth)).exp();
                        line.iter_mut().for_each(|x| *x *= factor);
                    }
                }
                if let Some(rate) = &rate {
                    let rate = rate.at(row, (g, groups), (0, 1));
                    for (m, v) in v.iter_mut().enumerate() {
                        let found: f32 = (0..depth).map(|d| state[d * width + m] * k[d]).sum();
                        *v = rate * (*v - found);
                    }
                }
                for (line, k) in state.chunks_exact_mut(width.max(1)).zip(k) {
                    line.iter_mut().zip(&v).for_each(|(x, v)| *x += k * v);
                }
                let share = self.heads / groups;
                for h in g * share..(g + 1) * share {
                    let q = &q[(row * self.heads + h) * depth..][..depth];
                    let y = &mut y[(row * self.heads + h) * width..][..width];
                    for (m, y) in y.iter_mut().enumerate() {
                        *y = scale * (0..depth).map(|d| q[d] * state[d * width + m]).sum::<f32>();
                    }
                }
            }
        }
        let y = narrowed(dtype, &[s.batch, s.steps, self.heads * width], &y)?;
        Ok(tvec![y, narrowed(state_type, &state_shape, &state)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_adds_up() {
        let linear = LinearAttention { heads: 1, groups: 1, scale: 1.0, gated: false, delta: false };
        let x = Tensor::from_shape(&[1, 2, 1], &[1f32, 2.0]).unwrap();
        let out = linear.eval(&[Some(&x), Some(&x), Some(&x)]).unwrap();
        assert_eq!(out[0], Tensor::from_shape(&[1, 2, 1], &[1f32, 10.0]).unwrap());
        assert_eq!(out[1], Tensor::from_shape(&[1, 1, 1, 1], &[5f32]).unwrap());
    }

    #[test]
    fn gates_are_needed_or_forbidden() {
        let x = Tensor::from_shape(&[1, 2, 1], &[1f32, 2.0]).unwrap();
        let delta = LinearAttention { heads: 1, groups: 1, scale: 1.0, gated: false, delta: true };
        assert!(delta.eval(&[Some(&x), Some(&x), Some(&x)]).is_err());
        let out = delta.eval(&[Some(&x), Some(&x), Some(&x), None, None, Some(&x)]).unwrap();
        // First 1 * 1; then the rate 2 corrects by 2 * (2 - 1 * 2) = 0.
        assert_eq!(out[1], Tensor::from_shape(&[1, 1, 1, 1], &[1f32]).unwrap());
    }
}
