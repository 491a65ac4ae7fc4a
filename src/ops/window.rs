//! Sliding windows: what convolutions and pools share (specification: Conv, AveragePool, MaxPool).

use super::rules::{int, ints, string};
use super::spec::InferContext;
use crate::error::{Error, Result};
use crate::ir::Dim;
use crate::math::{Padding, Patches};

/// Kernel, strides, dilations and padding over the spatial axes.
pub struct Window<'a> {
    kernel: Vec<Dim>,
    strides: Option<&'a [i64]>,
    dilations: Option<&'a [i64]>,
    pads: Option<&'a [i64]>,
    auto_pad: &'a str,
    ceil: bool,
}

/// A window along one axis, in numbers.
#[derive(Clone, Copy)]
pub struct Placed {
    /// Size of the kernel.
    pub kernel: usize,
    /// Step between windows.
    pub stride: usize,
    /// Step between the elements of a window.
    pub dilation: usize,
    /// Padding before.
    pub before: isize,
    /// Padding after.
    pub after: isize,
}

impl Placed {
    /// What an axis that there is not has.
    const NONE: Self = Self { kernel: 1, stride: 1, dilation: 1, before: 0, after: 0 };
}

/// Three axes, those that there are last.
pub fn last_three<V: Copy>(values: &[V], fill: V) -> [V; 3] {
    let mut three = [fill; 3];
    let n = values.len().min(3);
    three[3 - n..].copy_from_slice(&values[values.len() - n..]);
    three
}

/// The windows of a convolution or pool along three axes, from concrete spatial sizes (at most three).
pub fn placed(cx: &InferContext, kernel: &[usize], input: &[usize], output: &[usize]) -> Result<[Placed; 3]> {
    let window = Window::read(cx, kernel.iter().map(|&k| Dim::Known(k as i64)).collect())?;
    let axes: Result<Vec<Placed>> = (0..kernel.len()).map(|i| window.placed(i, input[i], output[i])).collect();
    Ok(last_three(&axes?, Placed::NONE))
}

fn check_list(name: &str, list: Option<&[i64]>, len: usize, least: i64) -> Result<()> {
    let Some(list) = list else { return Ok(()) };
    if list.len() != len {
        return Err(Error::invalid(format!("attribute \"{name}\" has {} elements, expected {len}", list.len())));
    }
    match list.iter().find(|&&x| x < least) {
        Some(x) => Err(Error::invalid(format!("attribute \"{name}\" holds {x}, expected at least {least}"))),
        None => Ok(()),
    }
}

impl<'a> Window<'a> {
    /// Reads the attributes of a node whose kernel has these sizes.
    pub fn read(cx: &InferContext<'a>, kernel: Vec<Dim>) -> Result<Self> {
        let n = kernel.len();
        if let Some(k) = kernel.iter().find(|k| matches!(k, Dim::Known(k) if *k < 1)) {
            return Err(Error::invalid(format!("the kernel has the size {k}")));
        }
        let (strides, dilations, pads) = (ints(cx, "strides")?, ints(cx, "dilations")?, ints(cx, "pads")?);
        check_list("strides", strides, n, 1)?;
        check_list("dilations", dilations, n, 1)?;
        check_list("pads", pads, 2 * n, i64::MIN)?;
        let auto_pad = string(cx, "auto_pad", "NOTSET")?;
        if !matches!(auto_pad, "NOTSET" | "" | "VALID" | "SAME_UPPER" | "SAME_LOWER") {
            return Err(Error::invalid(format!("unknown auto_pad \"{auto_pad}\"")));
        }
        let ceil = int(cx, "ceil_mode", 0)? != 0;
        Ok(Self { kernel, strides, dilations, pads, auto_pad, ceil })
    }

    fn stride(&self, i: usize) -> i128 {
        self.strides.map_or(1, |s| s[i].into())
    }

    /// Size of the dilated kernel.
    fn extent(&self, i: usize) -> Option<i128> {
        let Dim::Known(k) = self.kernel[i] else { return None };
        let dilation: i128 = self.dilations.map_or(1, |d| d[i].into());
        Some((i128::from(k) - 1) * dilation + 1)
    }

    fn same(&self) -> bool {
        self.auto_pad.starts_with("SAME")
    }

    /// Padding before and after.
    fn padding(&self, i: usize) -> (i128, i128) {
        match self.pads {
            Some(p) if self.auto_pad != "VALID" && !self.same() => (p[i].into(), p[i + self.kernel.len()].into()),
            _ => (0, 0),
        }
    }

    /// Output size along spatial axis `i` of a convolution or pool over an input of size `size`.
    pub fn forward(&self, i: usize, size: &Dim) -> Result<Dim> {
        let stride = self.stride(i);
        if self.same() && stride == 1 {
            return Ok(size.clone());
        }
        let (Dim::Known(n), Some(extent)) = (size, self.extent(i)) else { return Ok(Dim::Unknown) };
        let n = i128::from(*n);
        let (before, after) = self.padding(i);
        let out = if self.same() {
            (n + stride - 1).div_euclid(stride)
        } else {
            let room = n + before + after - extent;
            if room < 0 && n > 0 {
                return Err(Error::invalid(format!(
                    "a kernel of extent {extent} exceeds the padded input of size {n}"
                )));
            }
            let steps = if self.ceil { (room + stride - 1).div_euclid(stride) } else { room.div_euclid(stride) };
            // A window that would start in the padding after the input is not taken.
            if self.ceil && steps * stride >= n + before { steps } else { steps + 1 }
        };
        sized(out)
    }

    /// Step, dilation and padding (before, after) along spatial axis `i` of an input of size `n` with output size `out`.
    pub fn placed(&self, i: usize, n: usize, out: usize) -> Result<Placed> {
        let kernel = self.kernel[i].known().ok_or_else(|| Error::internal("a kernel of unknown size"))?;
        let (stride, dilation) = (self.stride(i) as isize, self.dilations.map_or(1, |d| d[i]) as isize);
        let (mut before, mut after) = self.padding(i);
        if self.same() {
            let extent = (kernel as isize - 1) * dilation + 1;
            let total = ((out as isize - 1) * stride + extent - n as isize).max(0) as i128;
            before = if self.auto_pad == "SAME_LOWER" { (total + 1) / 2 } else { total / 2 };
            after = total - before;
        }
        Ok(Placed {
            kernel,
            stride: stride as usize,
            dilation: dilation as usize,
            before: before as isize,
            after: after as isize,
        })
    }

    /// Output size along spatial axis `i` of a transposed convolution.
    pub fn transposed(&self, i: usize, size: &Dim, output_padding: i64) -> Result<Dim> {
        let stride = self.stride(i);
        let (Dim::Known(n), Some(extent)) = (size, self.extent(i)) else { return Ok(Dim::Unknown) };
        let n = i128::from(*n);
        let (before, after) = self.padding(i);
        if self.same() {
            return sized(n * stride);
        }
        sized(stride * (n - 1) + i128::from(output_padding) + extent - before - after)
    }
}

fn sized(n: i128) -> Result<Dim> {
    let n = i64::try_from(n.max(0)).map_err(|_| Error::invalid("the output size overflows"))?;
    Ok(Dim::Known(n))
}

/// Output shape of a convolution of input `x` with the weight at input `w`; `None` where a rank is unknown.
pub fn conv_shape(cx: &InferContext, x: usize, w: usize) -> Result<Option<Vec<Dim>>> {
    let (Some(xs), Some(ws)) = (cx.shape(x), cx.shape(w)) else { return Ok(None) };
    if xs.len() < 3 || xs.len() != ws.len() {
        let (a, b) = (xs.len(), ws.len());
        return Err(Error::invalid(format!(
            "input has rank {a} and weight rank {b}, expected equal ranks of 3 or more"
        )));
    }
    let group = int(cx, "group", 1)?;
    if let (Dim::Known(c), Dim::Known(per_group)) = (&xs[1], &ws[1])
        && per_group.checked_mul(group) != Some(*c)
    {
        return Err(Error::invalid(format!("input has {c} channels, the weight takes {per_group} in {group} groups")));
    }
    let window = Window::read(cx, kernel_of(cx, &ws[2..])?)?;
    let mut shape = vec![xs[0].clone(), ws[0].clone()];
    for (i, size) in xs[2..].iter().enumerate() {
        shape.push(window.forward(i, size)?);
    }
    Ok(Some(shape))
}

/// The windows of a convolution with the weight at input `w`, as they cut the input; `None` where a size is unknown.
pub fn conv_patches(cx: &InferContext, w: usize) -> Option<Patches> {
    let kernel = kernel_of(cx, cx.shape(w)?.get(2..)?).ok()?;
    let window = Window::read(cx, kernel).ok()?;
    let n = window.kernel.len();
    let kernel = window.kernel.iter().map(Dim::known).collect::<Option<Vec<usize>>>()?;
    let sizes = |list: Option<&[i64]>| match list {
        None => Some(vec![1; n]),
        Some(list) => list.iter().map(|&x| usize::try_from(x).ok()).collect(),
    };
    let padding = match window.auto_pad {
        "SAME_UPPER" => Padding::SameUpper,
        "SAME_LOWER" => Padding::SameLower,
        "VALID" => Padding::Fixed(vec![(0, 0); n]),
        _ => {
            let pads = window.pads.map_or_else(|| vec![0; 2 * n], <[i64]>::to_vec);
            let side = |k: usize| usize::try_from(pads[k]).ok();
            Padding::Fixed((0..n).map(|k| Some((side(k)?, side(k + n)?))).collect::<Option<_>>()?)
        }
    };
    let groups = usize::try_from(int(cx, "group", 1).ok()?).ok()?;
    let (strides, dilations) = (sizes(window.strides)?, sizes(window.dilations)?);
    Some(Patches { groups, kernel, strides, dilations, padding })
}

/// Kernel sizes: the weight's, checked against `kernel_shape` where that is given.
pub fn kernel_of(cx: &InferContext, weight: &[Dim]) -> Result<Vec<Dim>> {
    let Some(given) = ints(cx, "kernel_shape")? else { return Ok(weight.to_vec()) };
    check_list("kernel_shape", Some(given), weight.len(), 1)?;
    for (g, w) in given.iter().zip(weight) {
        if matches!(w, Dim::Known(w) if w != g) {
            return Err(Error::invalid(format!("kernel_shape {given:?} differs from the weight's")));
        }
    }
    Ok(given.iter().copied().map(Dim::Known).collect())
}

/// Output shape of a pool with `kernel_shape` over input `x`.
pub fn pool_shape(cx: &InferContext, x: usize, channels_last: bool) -> Result<Option<Vec<Dim>>> {
    let Some(xs) = cx.shape(x) else { return Ok(None) };
    let kernel = ints(cx, "kernel_shape")?.ok_or_else(|| Error::invalid("attribute \"kernel_shape\" is missing"))?;
    if xs.len() != kernel.len() + 2 {
        let (rank, n) = (xs.len(), kernel.len());
        return Err(Error::invalid(format!("input has rank {rank}, expected {} for a kernel of {n} axes", n + 2)));
    }
    let window = Window::read(cx, kernel.iter().copied().map(Dim::Known).collect())?;
    let first = if channels_last { 1 } else { 2 };
    let mut shape = xs.to_vec();
    for (i, size) in xs[first..first + kernel.len()].iter().enumerate() {
        shape[first + i] = window.forward(i, size)?;
    }
    Ok(Some(shape))
}
