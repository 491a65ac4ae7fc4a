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
