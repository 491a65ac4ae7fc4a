//! Resize, and its predecessor Upsample.

use crate::error::{Error, Result};
use crate::ir::{AttributeValue, Dim, OpId, Tensor};
use crate::ops::axes::{AxisLinks, Kept, LinkContext, Narrowed, input, output as out};
use crate::ops::gradient::{AxisMaps, Backward, Computed, Element, Forward, Gradients, Rule, rule};
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

    /// The scales; and before 11 they stood where the region stands now.
    fn f32_slots(&self) -> &'static [usize] {
        &[1, 2]
    }

    fn gradient(&self, cx: &InferContext) -> Option<Rule> {
        let text = |name: &str, default: &str| string(cx, name, default).unwrap_or("").to_string();
        let coordinates = text("coordinate_transformation_mode", "half_pixel");
        let plain = matches!(&*text("mode", "nearest"), "nearest" | "linear")
            && matches!(&*coordinates, "half_pixel" | "pytorch_half_pixel" | "align_corners" | "asymmetric")
            && text("keep_aspect_ratio_policy", "stretch") == "stretch"
            && cx.node.int("antialias").unwrap_or(0) == 0;
        if plain && cx.opset >= 9 { rule!(forward, backward, statistics: &[], settings: &[1, 2, 3]) } else { None }
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

/// The old coordinate of element `i` of an axis that grows from `n` to `out` elements by `scale`, in f32 as ONNX Runtime
/// computes it.
fn coordinate(mode: &str, i: usize, (n, out): (usize, usize), scale: f32) -> f32 {
    let (x, half_pixel) = (i as f32, (i as f32 + 0.5) / scale - 0.5);
    match mode {
        "asymmetric" => x / scale,
        "align_corners" if out > 1 => x * (n as f32 - 1.0) / (out as f32 - 1.0),
        "align_corners" => 0.0,
        "pytorch_half_pixel" if out < 2 => 0.0,
        _ => half_pixel,
    }
}

fn nearest(mode: &str, at: f32) -> f32 {
    match mode {
        "floor" => at.floor(),
        "ceil" => at.ceil(),
        "round_prefer_floor" if at == at.trunc() + 0.5 => at.floor(),
        _ => at.round(),
    }
}

/// Which elements each new one is made of.
fn maps<T: Element>(cx: &InferContext, x: &[usize], y: &[usize], scales: Option<Vec<f32>>) -> Result<AxisMaps<T>> {
    let old = cx.opset < 11;
    let coordinates = string(cx, "coordinate_transformation_mode", if old { "asymmetric" } else { "half_pixel" })?;
    let rounding = string(cx, "nearest_mode", if old { "floor" } else { "round_prefer_floor" })?;
    let is_nearest = string(cx, "mode", "nearest")? == "nearest";
    let axes = match ints(cx, "axes")? {
        Some(axes) => axes.iter().map(|&a| axis(a, x.len())).collect::<Result<Vec<_>>>()?,
        None => (0..x.len()).collect(),
    };
    let mut maps = vec![];
    for (k, &at) in axes.iter().enumerate() {
        let sizes = (x[at], y[at]);
        let scale = scales.as_ref().and_then(|s| s.get(k).copied()).unwrap_or(sizes.1 as f32 / sizes.0.max(1) as f32);
        if sizes.0 == sizes.1 && scale == 1.0 {
            continue;
        }
        let last = sizes.0.saturating_sub(1);
        let entry = |i: usize| {
            let place = coordinate(coordinates, i, sizes, scale);
            if is_nearest {
                return vec![((nearest(rounding, place).max(0.0) as usize).min(last), T::one())];
            }
            let place = place.clamp(0.0, last as f32);
            let (below, part) = (place.floor() as usize, T::of(f64::from(place.fract())));
            vec![(below, T::one() - part), ((below + 1).min(last), part)]
        };
        maps.push((at, (0..sizes.1).map(entry).collect()));
    }
    Ok(AxisMaps { maps })
}

fn given_scales<T: Element>(cx: &InferContext, input: impl Fn(usize) -> Option<Vec<T>>) -> Option<Vec<f32>> {
    let slot = if cx.opset >= 11 { 2 } else { 1 };
    let given = input(slot).filter(|s| !s.is_empty())?;
    Some(given.into_iter().map(|s| s.wide() as f32).collect())
}

/// The output's shape: from sizes by inference, from scales (which are floats, so inference does not see them) here.
fn resized(cx: &InferContext, x: &[usize], scales: Option<&[f32]>) -> Result<Vec<usize>> {
    let Some(scales) = scales else {
        let found = shape(cx)?.map(|s| s.iter().map(Dim::known).collect::<Option<Vec<usize>>>());
        return found.flatten().ok_or_else(|| Error::unsupported("its sizes are not known before it is executed"));
    };
    let mut y = x.to_vec();
    let axes = ints(cx, "axes")?.map_or_else(|| (0..x.len() as i64).collect(), <[i64]>::to_vec);
    for (&a, &scale) in axes.iter().zip(scales) {
        let at = axis(a, x.len())?;
        y[at] = (x[at] as f32 * scale).floor() as usize;
    }
    Ok(y)
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let x = f.float(0)?;
    let scales = given_scales(f.cx, |k| f.optional(k).map(|a| a.data().to_vec()));
    let y = resized(f.cx, x.dims(), scales.as_deref())?;
    Ok(Computed::one(maps(f.cx, x.dims(), &y, scales)?.apply(x)))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let (x, dy) = (b.float(0)?, b.grad()?);
    let scales = given_scales(b.cx, |k| b.optional(k).map(|a| a.data().to_vec()));
    Ok(b.first(maps(b.cx, x.dims(), dy.dims(), scales)?.apply_backward(x.dims(), dy)))
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
