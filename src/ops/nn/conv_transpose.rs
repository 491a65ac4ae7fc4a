//! ConvTranspose.

use crate::error::{Error, Result};
use crate::ir::{Dim, Type};
use crate::ops::rules::{count, int, ints, mul_dims, output};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Purpose, Schema, WeightRole, op};
use crate::ops::window::{Window, kernel_of};

/// Transposed convolution. It has no quantized kernel in ONNX or ONNX Runtime, so its role in quantization is opaque.
pub struct ConvTranspose;

impl OpSpec for ConvTranspose {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("ConvTranspose", &[1, 11, 22])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(cx.elem(0), shape(cx)?)
    }

    fn weight(&self, _cx: &InferContext) -> Option<WeightRole> {
        // [inputs, outputs / group, window...]
        Some(WeightRole { slot: 1, channel_axis: 1, block_axis: 0, purpose: Purpose::Product(None) })
    }

    fn macs(&self, cx: &InferContext, _outputs: &[Option<&Type>]) -> Option<u64> {
        // Each input element meets the weight's elements per input channel: `Cout / group * prod(kernel)`.
        Some(count(cx.shape(0)?).saturating_mul(count(cx.shape(1)?.get(1..)?)))
    }
}

fn shape(cx: &InferContext) -> Result<Option<Vec<Dim>>> {
    let (Some(xs), Some(ws)) = (cx.shape(0), cx.shape(1)) else { return Ok(None) };
    if xs.len() < 3 || xs.len() != ws.len() {
        let (a, b) = (xs.len(), ws.len());
        return Err(Error::invalid(format!(
            "input has rank {a} and weight rank {b}, expected equal ranks of 3 or more"
        )));
    }
    let n = xs.len() - 2;
    let window = Window::read(cx, kernel_of(cx, &ws[2..])?)?;
    let mut shape = vec![xs[0].clone(), mul_dims(&ws[1], &Dim::Known(int(cx, "group", 1)?))];
    if let Some(given) = ints(cx, "output_shape")? {
        // Some exporters give all dimensions; the specification wants the spatial ones.
        let given = given.get(given.len().saturating_sub(n)..).filter(|g| g.len() == n);
        let given = given.ok_or_else(|| Error::invalid(format!("attribute \"output_shape\" needs {n} elements")))?;
        shape.extend(given.iter().copied().map(Dim::Known));
        return Ok(Some(shape));
    }
    let extra = ints(cx, "output_padding")?.unwrap_or_default();
    if !extra.is_empty() && extra.len() != n {
        return Err(Error::invalid(format!("attribute \"output_padding\" has {} elements, expected {n}", extra.len())));
    }
    for (i, size) in xs[2..].iter().enumerate() {
        shape.push(window.transposed(i, size, extra.get(i).copied().unwrap_or(0))?);
    }
    Ok(Some(shape))
}
