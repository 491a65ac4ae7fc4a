//! LpPool.

use super::super::custom::{Fact, Kernel};
use super::common::{concrete, f64s, fact, flag, for_each_index, ints, narrowed, strides, text, volume};
use super::layout::required;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// `LpPool` (specification: versions 2 to 22): the p-norm of each window, in f64.
#[derive(Debug)]
pub(super) struct LpPool {
    p: f64,
    kernel: Vec<usize>,
    dilations: Vec<usize>,
    strides: Vec<usize>,
    pads: Vec<usize>,
    auto: Option<Auto>,
    ceil: bool,
}

/// Padding that depends on the size of the input.
#[derive(Debug, PartialEq, Clone, Copy)]
enum Auto {
    Upper,
    Lower,
}

/// One spatial axis: what is padded before it, and how many windows there are.
struct Axis {
    before: usize,
    out: usize,
}

impl LpPool {
    pub(super) fn parse(node: &NodeProto) -> TractResult<Self> {
        let kernel = ints(node, "kernel_shape")?.context("kernel_shape is missing")?;
        let rank = kernel.len();
        let list = |name, least: i64, len: usize| -> TractResult<Vec<usize>> {
            let values = ints(node, name)?.unwrap_or_else(|| vec![least; len]);
            ensure!(values.len() == len && values.iter().all(|&v| (least..1 << 30).contains(&v)), "{name} {values:?}");
            Ok(values.into_iter().map(|v| v as usize).collect())
        };
        let dilations_are_one = ints(node, "dilations")?.is_none_or(|d| d.iter().all(|&d| d == 1));
        let auto = match &*text(node, "auto_pad", "NOTSET")? {
            "NOTSET" | "VALID" => None,
            "SAME_UPPER" => Some(Auto::Upper),
            "SAME_LOWER" => Some(Auto::Lower),
            other => bail!("auto_pad \"{other}\""),
        };
        // ONNX Runtime, and the specification, do not agree with themselves here.
        ensure!(auto.is_none() || dilations_are_one, "auto_pad with dilations");
        let p: i64 = node.get_attr_opt("p")?.unwrap_or(2);
        ensure!(p > 0, "p = {p}");
        Ok(Self {
            p: p as f64,
            dilations: list("dilations", 1, rank)?,
            strides: list("strides", 1, rank)?,
            pads: list("pads", 0, 2 * rank)?,
            kernel: list("kernel_shape", 1, rank)?,
            auto,
            ceil: flag(node, "ceil_mode")?,
        })
    }

    fn axes(&self, x: &[usize]) -> TractResult<Vec<Axis>> {
        let rank = self.kernel.len();
        ensure!(x.len() == rank + 2, "a kernel of {rank} axes over shape {x:?}");
        let axis = |k: usize| {
            let (size, stride) = (x[k + 2], self.strides[k]);
            let reach = (self.kernel[k] - 1).checked_mul(self.dilations[k]).context("the reach of the kernel")? + 1;
            if let Some(auto) = self.auto {
                let out = size.div_ceil(stride);
                let all = (out.saturating_sub(1) * stride + reach).saturating_sub(size);
                return Ok(Axis { before: if auto == Auto::Upper { all / 2 } else { all.div_ceil(2) }, out });
            }
            let room = (size + self.pads[k] + self.pads[rank + k]).checked_sub(reach);
            let room = room.with_context(|| format!("a window of {reach} over {size} elements"))?;
            let out = if self.ceil { room.div_ceil(stride) } else { room / stride } + 1;
            // A window that lies in the padding alone is not counted by everyone.
            ensure!((out - 1) * stride < size + self.pads[k], "a window in the padding alone");
            Ok(Axis { before: self.pads[k], out })
        };
        (0..rank).map(axis).collect()
    }
}

fn shape(x: &[usize], axes: &[Axis]) -> TractResult<TVec<usize>> {
    let mut shape: TVec<usize> = x[..2].into();
    shape.extend(axes.iter().map(|a| a.out));
    volume(&shape)?;
    Ok(shape)
}

impl Kernel for LpPool {
    fn name(&self) -> &'static str {
        "LpPool"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let x = required(inputs, 0)?;
        let from = concrete(&x.shape)?;
        Ok(tvec![fact(x.dtype, &shape(&from, &self.axes(&from)?)?)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        let axes = self.axes(x.shape())?;
        let shape = shape(x.shape(), &axes)?;
        let (values, steps) = (f64s(x)?, strides(x.shape()));
        let mut y = vec![];
        for_each_index(&shape, |_, index| {
            let base = index[0] * steps[0] + index[1] * steps[1];
            let mut sum = 0f64;
            for_each_index(&self.kernel, |_, tap| {
                let mut flat = base;
                for (k, a) in axes.iter().enumerate() {
                    let at = index[k + 2] * self.strides[k] + tap[k] * self.dilations[k];
                    match at.checked_sub(a.before) {
                        Some(at) if at < x.shape()[k + 2] => flat += at * steps[k + 2],
                        _ => return Ok(()),
                    }
                }
                sum += values[flat].abs().powf(self.p);
                Ok(())
            })?;
            y.push(sum.powf(1.0 / self.p));
            Ok(())
        })?;
        Ok(tvec![narrowed(x.datum_type(), &shape, &y)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(auto: Option<Auto>, pads: [usize; 2], ceil: bool) -> LpPool {
        LpPool { p: 1.0, kernel: vec![2], dilations: vec![1], strides: vec![2], pads: pads.to_vec(), auto, ceil }
    }

    #[test]
    fn windows_over_the_edge() {
        let x = Tensor::from_shape(&[1, 1, 3], &[1f32, -2.0, 4.0]).unwrap();
        let run = |op: LpPool| op.eval(&[Some(&x)]).map(|y| f64s(&y[0]).unwrap());
        assert_eq!(run(pool(None, [0, 0], false)).unwrap(), [3.0]);
        assert_eq!(run(pool(None, [0, 0], true)).unwrap(), [3.0, 4.0]);
        assert_eq!(run(pool(Some(Auto::Upper), [0, 0], false)).unwrap(), [3.0, 4.0]);
        assert_eq!(run(pool(Some(Auto::Lower), [0, 0], false)).unwrap(), [1.0, 6.0]);
        assert!(run(pool(None, [0, 3], false)).is_err());
    }
}
