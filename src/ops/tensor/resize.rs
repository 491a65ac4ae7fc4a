//! Resize, and its predecessor Upsample.

use crate::error::{Error, Result};
use crate::ir::{AttributeValue, Dim, OpId, Tensor};
use crate::ops::axes::{AxisLinks, Kept, LinkContext, Narrowed, input, output as out};
use crate::ops::rules::{axis, ints, is_f32, output, string, unknown_of_len, vector, without};
use crate::ops::spec::{InferContext, Inferred, OpSpec, QuantRole, Schema, Source, Step, Upgrade, op};

/// Resamples a tensor.
pub struct Resize;

impl OpSpec for Resize {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Resize", &[10, 11, 13, 18, 19]), op("Upsample", &[1, 7, 9, 10])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        output(cx.elem(0), shape(cx)?)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        let nearest = string(cx, "mode", "nearest").is_ok_and(|m| m == "nearest");
        // Cropping may insert a constant of its own.
        let crops = string(cx, "coordinate_transformation_mode", "").is_ok_and(|m| m == "tf_crop_and_resize");
        if is_f32(cx, 0) && nearest && !crops { QuantRole::PassThrough { input: 0 } } else { QuantRole::Opaque }
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        let is_upsample = &*cx.node.op.op_type == "Upsample";
        if is_upsample && to < 11 && (to >= 10 || cx.opset < 9) {
            return Upgrade::Impossible("it can be moved to operator set 11 or newer only".into());
        }
        let removed = string(cx, "coordinate_transformation_mode", "").is_ok_and(|m| m == "tf_half_pixel_for_nn");
        if cx.opset < 13 && to >= 13 && removed {
            return Upgrade::Impossible("\"tf_half_pixel_for_nn\" has no successor".into());
        }
        if cx.opset >= 11 || to < 11 {
            return Upgrade::Same;
        }
        // Until 11 source coordinates were `x / scale`, rounded down for nearest: "asymmetric" with "floor".
        let mode = match string(cx, "mode", "nearest") {
            Ok(mode @ ("nearest" | "linear")) => mode.to_string(),
            Ok("bilinear") => "linear".to_string(),
            _ => return Upgrade::Impossible("its mode has no successor".into()),
        };
        let scales: Option<Vec<f32>> = match cx.node.attribute("scales") {
            Some(AttributeValue::Floats(v)) if cx.opset < 9 => Some(v.clone()),
            _ if cx.opset < 7 => first_scales(cx),
            _ => None,
        };
        let scales = match scales {
            Some(s) => Source::Constant(Tensor::from_f32(&[s.len()], &s)),
            None if cx.opset >= 9 => Source::Input(1),
            None => return Upgrade::Impossible("its scales are missing".into()),
        };
        let mut node = without(cx.node, &["scales", "height_scale", "width_scale"]);
        if is_upsample {
            node.op = OpId::onnx("Resize");
        }
        node.set("mode", AttributeValue::String(mode.into_bytes()));
        node.set("coordinate_transformation_mode", "asymmetric".into());
        node.set("nearest_mode", "floor".into());
        let roi = Source::Constant(Tensor::from_f32(&[0], &[]));
        Upgrade::Replaced(vec![Step { node, inputs: vec![Source::Input(0), roi, scales] }])
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        // Axes that keep their size are copied, unless a part is cut out.
        if matches!(string(cx.cx, "coordinate_transformation_mode", ""), Ok("tf_crop_and_resize")) {
            return None;
        }
        let sizes = cx.cx.opset >= 11 && cx.cx.present(3);
        let mut links = AxisLinks::default();
        for k in 0..cx.rank(0)? {
            let kept = cx.equal(input(0, k), out(0, k));
            if kept && (!sizes || ints(cx.cx, "axes").ok()?.is_some() || cx.cx.ints(3).is_some()) {
                links.same(input(0, k), out(0, k));
            }
        }
        Some(links)
    }

    fn narrow(&self, cx: &LinkContext, kept: &Kept) -> Narrowed {
        let Some(rank) = cx.rank(0).filter(|_| cx.cx.opset >= 11 && cx.cx.present(3)) else { return Narrowed::Same };
        let Some(mut sizes) = cx.cx.ints(3) else { return Narrowed::Same };
        let axes: Vec<usize> = match ints(cx.cx, "axes") {
            Ok(Some(axes)) => axes.iter().filter_map(|&a| axis(a, rank).ok()).collect(),
            _ => (0..rank).collect(),
        };
        let mut changed = false;
        for (size, &at) in sizes.iter_mut().zip(&axes) {
            if let Some(left) = kept.of(out(0, at)) {
                *size = left.len() as i64;
                changed = true;
            }
        }
        if !changed {
            return Narrowed::Same;
        }
        Narrowed::with_inputs(cx.cx.node, vec![(3, Tensor::from_i64(&[sizes.len()], &sizes))])
    }
}

/// The scales of the first Upsample, for images `[n, c, height, width]`.
fn first_scales(cx: &InferContext) -> Option<Vec<f32>> {
    Some(vec![1.0, 1.0, cx.node.float("height_scale")?, cx.node.float("width_scale")?])
}

/// The scales: an attribute of the first Upsample, then input 1, then input 2.
fn scales(cx: &InferContext) -> Option<Vec<f32>> {
    if cx.opset < 9 {
        return match cx.node.attribute("scales") {
            Some(AttributeValue::Floats(v)) => Some(v.clone()),
            _ => None,
        };
    }
    let slot = if cx.opset >= 11 { 2 } else { 1 };
    cx.constant(slot)?.to_f32().ok().filter(|s| !s.is_empty())
}

fn shape(cx: &InferContext) -> Result<Option<Vec<Dim>>> {
    let Some(shape) = cx.shape(0) else { return Ok(None) };
    let rank = shape.len();
    let axes = match ints(cx, "axes")? {
        Some(axes) => axes.iter().map(|&a| axis(a, rank)).collect::<Result<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    let mut resized = shape.to_vec();
    let wrong_length = |n: usize| Error::invalid(format!("{n} sizes or scales for {} axes", axes.len()));
    if cx.opset >= 11 && cx.present(3) {
        let sizes = vector(cx, 3).or_else(|| unknown_of_len(cx, 3)).unwrap_or_else(|| vec![Dim::Unknown; axes.len()]);
        let stretched = string(cx, "keep_aspect_ratio_policy", "stretch")? == "stretch";
        if sizes.len() != axes.len() {
            return Err(wrong_length(sizes.len()));
        }
        for (&at, size) in axes.iter().zip(sizes) {
            resized[at] = if stretched { size } else { Dim::Unknown };
        }
        return Ok(Some(resized));
    }
    let crops = string(cx, "coordinate_transformation_mode", "half_pixel")? == "tf_crop_and_resize";
    match scales(cx).filter(|_| !crops) {
        None => axes.iter().for_each(|&at| resized[at] = Dim::Unknown),
        Some(scales) if scales.len() != axes.len() => return Err(wrong_length(scales.len())),
        Some(scales) => {
            for (&at, scale) in axes.iter().zip(scales) {
                resized[at] = scaled(&shape[at], scale);
            }
        }
    }
    Ok(Some(resized))
}

fn scaled(size: &Dim, scale: f32) -> Dim {
    match size {
        d if scale == 1.0 => d.clone(),
        // In f32, as the reference implementation and ONNX Runtime compute it.
        Dim::Known(n) if scale.is_finite() && scale > 0.0 => Dim::Known((*n as f32 * scale).floor() as i64),
        _ => Dim::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_in_f32() {
        assert_eq!(scaled(&Dim::Known(10), 0.6), Dim::Known(6));
        assert_eq!(scaled(&Dim::Known(3), 2.0 / 3.0), Dim::Known(2));
        assert_eq!(scaled(&Dim::Unknown, 2.0), Dim::Unknown);
    }
}
