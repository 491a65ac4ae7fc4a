//! Pad.

use super::super::custom::{Fact, Kernel};
use super::common::{axis_of, concrete, constant, fact, i64s, ints, pick, strides, text, volume};
use super::layout::{optional, required};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// What lies beyond the edges.
#[derive(Debug, PartialEq)]
enum Mode {
    Constant,
    Edge,
    Reflect,
    Wrap,
}

/// `Pad` (specification: versions 2 to 25) in any mode, over chosen axes. Negative pads cut, before the others pad.
#[derive(Debug)]
pub(super) struct Pad {
    mode: Mode,
    /// Pads and value as attributes (before version 11).
    old: Option<(Vec<i64>, f32)>,
}

impl Pad {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let mode = match &*text(node, "mode", "constant")? {
            "constant" => Mode::Constant,
            "edge" => Mode::Edge,
            "reflect" => Mode::Reflect,
            "wrap" => Mode::Wrap,
            other => bail!("mode \"{other}\""),
        };
        let value = node.get_attr_opt("value")?.unwrap_or(0.0);
        Ok(Self { mode, old: ints(node, "pads")?.map(|pads| (pads, value)) })
    }

    fn axes(&self, x: &[usize], pads: Option<&Tensor>, axes: Option<&Tensor>) -> TractResult<Vec<Axis>> {
        let pads = match (pads, &self.old) {
            (Some(pads), _) => i64s(pads)?,
            (None, Some((pads, _))) => pads.clone(),
            (None, None) => bail!("no pads"),
        };
        let axes = axes.map(i64s).transpose()?.unwrap_or_else(|| (0..x.len() as i64).collect());
        ensure!(pads.len() == 2 * axes.len(), "{} pads for {} axes", pads.len(), axes.len());
        let mut all: Vec<Axis> = x.iter().map(|&n| Axis { start: 0, len: n, before: 0, out: n }).collect();
        for (k, &axis) in axes.iter().enumerate() {
            all[axis_of(axis, x.len())?] = self.axis(x[axis_of(axis, x.len())?], pads[k], pads[axes.len() + k])?;
        }
        Ok(all)
    }

    fn axis(&self, size: usize, before: i64, after: i64) -> TractResult<Axis> {
        ensure!(before.unsigned_abs() < 1 << 40 && after.unsigned_abs() < 1 << 40, "pads of {before} and {after}");
        let cut = |pad: i64| usize::try_from(-pad.min(0));
        let (first, last) = (cut(before)?, cut(after)?);
        let len = size.checked_sub(first + last).with_context(|| format!("cutting {first} and {last} of {size}"))?;
        let (before, after) = (before.max(0) as usize, after.max(0) as usize);
        let longest = match self.mode {
            _ if before.max(after) == 0 => 0,
            Mode::Constant => usize::MAX,
            Mode::Reflect => len.saturating_sub(1),
            Mode::Edge | Mode::Wrap => {
                if len == 0 {
                    0
                } else {
                    usize::MAX
                }
            }
        };
        ensure!(before.max(after) <= longest, "pads of {before} and {after} around {len} elements");
        Ok(Axis { start: first, len, before, out: before + len + after })
    }
}

/// One axis: what is left of it after cutting, and what is put before.
struct Axis {
    start: usize,
    len: usize,
    before: usize,
    out: usize,
}

impl Kernel for Pad {
    fn name(&self) -> &'static str {
        "Pad"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let x = required(inputs, 0)?;
        let given = |slot| -> TractResult<Option<Arc<Tensor>>> {
            optional(inputs, slot).map(|_| constant(inputs, slot, "what is padded")).transpose()
        };
        let axes = self.axes(&concrete(&x.shape)?, given(1)?.as_deref(), given(3)?.as_deref())?;
        let shape: TVec<usize> = axes.iter().map(|a| a.out).collect();
        volume(&shape)?;
        Ok(tvec![fact(x.dtype, &shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        let axes = self.axes(x.shape(), optional(inputs, 1), optional(inputs, 3))?;
        let shape: TVec<usize> = axes.iter().map(|a| a.out).collect();
        let steps = strides(x.shape());
        let old = match &self.old {
            Some((_, value)) => Some(tensor0(*value).cast_to_dt(x.datum_type())?.into_owned()),
            None => None,
        };
        let place = |index: &[usize]| {
            let mut flat = 0;
            for ((&i, a), step) in index.iter().zip(&axes).zip(&steps) {
                let (i, len) = (i as i64 - a.before as i64, a.len as i64);
                let inside = match self.mode {
                    _ if (0..len).contains(&i) => i,
                    Mode::Constant => return None,
                    Mode::Edge => i.clamp(0, len - 1),
                    Mode::Reflect if i < 0 => -i,
                    Mode::Reflect => 2 * (len - 1) - i,
                    Mode::Wrap => i.rem_euclid(len),
                };
                flat += (a.start + inside as usize) * step;
            }
            Some(flat)
        };
        let fill = optional(inputs, 2).or(old.as_ref()).filter(|_| self.mode == Mode::Constant);
        Ok(tvec![pick(x, &shape, fill, place)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(mode: Mode, x: &Tensor, pads: &[i64], axes: Option<&[i64]>) -> TractResult<Tensor> {
        let axes = axes.map(tensor1);
        let op = Pad { mode, old: None };
        op.eval(&[Some(x), Some(&tensor1(pads)), None, axes.as_ref()]).map(|y| y[0].clone())
    }

    #[test]
    fn every_mode_cuts_and_pads() {
        let x = tensor1(&[1i32, 2, 3]);
        assert_eq!(run(Mode::Wrap, &x, &[4, 1], None).unwrap(), tensor1(&[3i32, 1, 2, 3, 1, 2, 3, 1]));
        assert_eq!(run(Mode::Reflect, &x, &[2, 1], None).unwrap(), tensor1(&[3i32, 2, 1, 2, 3, 2]));
        assert_eq!(run(Mode::Edge, &x, &[2, -1], None).unwrap(), tensor1(&[1i32, 1, 1, 2]));
        assert_eq!(run(Mode::Constant, &x, &[-2, 2], None).unwrap(), tensor1(&[3i32, 0, 0]));
        let x = tensor2(&[[1i32], [2]]);
        assert_eq!(run(Mode::Constant, &x, &[1, 0], Some(&[-1])).unwrap(), tensor2(&[[0i32, 1], [0, 2]]));
    }

    #[test]
    fn what_cannot_be_padded_is_an_error() {
        let x = tensor1(&[1i32, 2, 3]);
        assert!(run(Mode::Reflect, &x, &[3, 0], None).is_err() && run(Mode::Constant, &x, &[-2, -2], None).is_err());
        assert!(run(Mode::Constant, &x, &[i64::MIN, i64::MAX], None).is_err());
        assert!(run(Mode::Constant, &x, &[1 << 39, 0], None).is_err());
        assert!(run(Mode::Edge, &Tensor::zero::<i32>(&[0]).unwrap(), &[1, 0], None).is_err());
    }
}
