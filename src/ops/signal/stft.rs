//! STFT.

use crate::error::Result;
use crate::ir::Dim;
use crate::ops::rules::{int, output, single, size};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, op};

/// Fourier transforms of overlapping frames: `[batch, frames, bins, 2]`.
pub struct Stft;

impl OpSpec for Stft {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("STFT", &[17])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let frames = frames(cx);
        let length = length(cx);
        let one_sided = int(cx, "onesided", 1)? != 0;
        let bins = match length {
            Some(n) if one_sided => Dim::Known(n / 2 + 1),
            Some(n) => Dim::Known(n),
            None => Dim::Unknown,
        };
        output(cx.elem(0), Some(vec![size(cx, 0, 0), frames, bins, Dim::Known(2)]))
    }
}

/// Samples per frame: given, or those of the window.
fn length(cx: &InferContext) -> Option<i64> {
    let given = if cx.present(3) { single(cx, 3) } else { Some(size(cx, 2, 0)) };
    match given? {
        Dim::Known(n) if n > 0 => Some(n),
        _ => None,
    }
}

fn frames(cx: &InferContext) -> Dim {
    let (Dim::Known(samples), Some(length)) = (size(cx, 0, 1), length(cx)) else { return Dim::Unknown };
    match single(cx, 1) {
        Some(Dim::Known(step)) if step > 0 && samples >= length => Dim::Known((samples - length) / step + 1),
        _ => Dim::Unknown,
    }
}
