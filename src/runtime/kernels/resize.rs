//! Resize and Upsample.

use super::super::custom::{Fact, Kernel};
use super::common::{axis_of, concrete, constant, f32s, fact, flag, i64s, ints, narrowed, pick, strides, text, volume};
use super::layout::{optional, required};
use super::resize_axis::{Axis, Coordinates, Mode, Nearest, Taps};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// How sizes that are given keep the aspect ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Policy {
    Stretch,
    NotLarger,
    NotSmaller,
}

/// `Resize` (specification: versions 10 to 19) without antialiasing, and `Upsample` (versions 7 and 9), one axis after the other,
/// with the coordinates in f32 as in ONNX Runtime.
#[derive(Debug)]
pub(super) struct Resize {
    mode: Mode,
    coordinates: Coordinates,
    axes: Option<Vec<i64>>,
    policy: Policy,
    extrapolation: f32,
    /// Slots of roi, scales and sizes.
    slots: [Option<usize>; 3],
    /// Scales as an attribute.
    scales: Option<Vec<f32>>,
}

impl Resize {
    pub(super) fn parse(node: &NodeProto, opset: i64) -> TractResult<Self> {
        ensure!(!flag(node, "antialias")?, "antialias");
        let mode = match &*text(node, "mode", "nearest")? {
            "nearest" => Mode::Nearest(match &*text(node, "nearest_mode", "round_prefer_floor")? {
                "round_prefer_floor" if opset > 10 => Nearest::PreferFloor,
                "round_prefer_ceil" => Nearest::PreferCeil,
                "ceil" => Nearest::Ceil,
                // The only one before version 11.
                "floor" | "round_prefer_floor" => Nearest::Floor,
                other => bail!("nearest_mode \"{other}\""),
            }),
            "linear" => Mode::Linear,
            "cubic" => Mode::Cubic {
                a: node.get_attr_opt("cubic_coeff_a")?.unwrap_or(-0.75),
                exclude_outside: flag(node, "exclude_outside")?,
            },
            other => bail!("mode \"{other}\""),
        };
        let coordinates = match opset {
            ..11 => Coordinates::Asymmetric,
            _ => Coordinates::parse(&text(node, "coordinate_transformation_mode", "half_pixel")?)?,
        };
        let policy = match &*text(node, "keep_aspect_ratio_policy", "stretch")? {
            "stretch" => Policy::Stretch,
            "not_larger" => Policy::NotLarger,
            "not_smaller" => Policy::NotSmaller,
            other => bail!("keep_aspect_ratio_policy \"{other}\""),
        };
        let slots = if opset > 10 { [Some(1), Some(2), Some(3)] } else { [None, Some(1), None] };
        let extrapolation = node.get_attr_opt("extrapolation_value")?.unwrap_or(0.0);
        Ok(Self { mode, coordinates, axes: ints(node, "axes")?, policy, extrapolation, slots, scales: None })
    }

    /// `Upsample`: nearest is below, and coordinates are plain multiples.
    pub(super) fn parse_upsample(node: &NodeProto) -> TractResult<Self> {
        let mode = match &*text(node, "mode", "nearest")? {
            "nearest" => Mode::Nearest(Nearest::Floor),
            "linear" => Mode::Linear,
            other => bail!("mode \"{other}\""),
        };
        let scales: Option<Vec<f32>> = node.get_attr_opt_vec("scales")?;
        let slots = [None, scales.is_none().then_some(1), None];
        let (coordinates, policy) = (Coordinates::Asymmetric, Policy::Stretch);
        Ok(Self { mode, coordinates, axes: None, policy, extrapolation: 0.0, slots, scales })
    }

    /// Every axis, where `input` gives what is in a slot.
    fn plan<'t>(
        &self,
        x: &[usize],
        input: impl Fn(usize) -> TractResult<Option<&'t Tensor>>,
    ) -> TractResult<Vec<Axis>> {
        let at = |which: usize| self.slots[which].map_or(Ok(None), &input);
        let filled = |t: Option<&'t Tensor>| t.filter(|t| t.len() > 0);
        let axes: Vec<usize> = match &self.axes {
            Some(axes) => axes.iter().map(|&a| axis_of(a, x.len())).collect::<TractResult<_>>()?,
            None => (0..x.len()).collect(),
        };
        let scales = match &self.scales {
            Some(scales) => Some(scales.clone()),
            None => filled(at(1)?).map(f32s).transpose()?,
        };
        let sizes = filled(at(2)?).map(i64s).transpose()?;
        let (scales, sizes) = match (scales, sizes) {
            (Some(scales), None) => {
                ensure!(scales.len() == axes.len() && scales.iter().all(|&s| s > 0.0), "scales {scales:?}");
                let whole = |(&a, s): (&usize, &f32)| (x[a] as f32 * s).fract() == 0.0;
                // The specification computes with the broken length where ONNX Runtime takes the whole one.
                let broken = !axes.iter().zip(&scales).all(whole);
                ensure!(!(broken && self.coordinates.needs_length()), "scales that make no whole length");
                let size = |(&a, s): (&usize, &f32)| (x[a] as f32 * s).floor() as usize;
                let sizes = axes.iter().zip(&scales).map(size).collect();
                (scales, sizes)
            }
            (None, Some(sizes)) => self.by_sizes(&axes.iter().map(|&a| x[a]).collect::<Vec<_>>(), &sizes)?,
            _ => bail!("either scales or sizes are expected"),
        };
        let crop = self.coordinates == Coordinates::TfCropAndResize;
        // ONNX Runtime reads the roi of volumes differently, and its symmetric coordinates keep no aspect ratio.
        ensure!(!crop || x.len() <= 4, "tf_crop_and_resize in {} axes", x.len());
        let symmetric = self.coordinates == Coordinates::HalfPixelSymmetric;
        ensure!(!symmetric || self.policy == Policy::Stretch, "half_pixel_symmetric with keep_aspect_ratio_policy");
        let roi = if crop { f32s(filled(at(0)?).context("no roi")?)? } else { vec![0.0; 2 * axes.len()] };
        ensure!(roi.len() == 2 * axes.len(), "roi {roi:?}");
        let mut all: Vec<Axis> = x.iter().map(|&n| Axis { len: n, out: n, scale: 1.0, roi: [0.0, 1.0] }).collect();
        for (k, &a) in axes.iter().enumerate() {
            all[a] = Axis { len: x[a], out: sizes[k], scale: scales[k], roi: [roi[k], roi[axes.len() + k]] };
        }
        volume(&all.iter().map(|a| a.out).collect::<Vec<_>>())?;
        ensure!(all.iter().all(|a| a.len > 0 || a.out == 0), "nothing of shape {x:?} to resize");
        Ok(all)
    }

    /// Scales and final sizes.
    fn by_sizes(&self, x: &[usize], sizes: &[i64]) -> TractResult<(Vec<f32>, Vec<usize>)> {
        ensure!(sizes.len() == x.len() && x.iter().all(|&n| n > 0), "sizes {sizes:?} for {x:?}");
        let sizes: Vec<usize> = sizes.iter().map(|&n| usize::try_from(n)).collect::<Result<_, _>>()?;
        let scales: Vec<f32> = sizes.iter().zip(x).map(|(&size, &n)| size as f32 / n as f32).collect();
        let one = match self.policy {
            Policy::Stretch => return Ok((scales, sizes)),
            Policy::NotLarger => scales.iter().copied().fold(f32::INFINITY, f32::min),
            Policy::NotSmaller => scales.iter().copied().fold(0.0, f32::max),
        };
        Ok((vec![one; x.len()], x.iter().map(|&n| (one * n as f32).round() as usize).collect()))
    }

    /// One axis of an f32 tensor.
    fn along(&self, x: &[f32], shape: &mut [usize], axis: usize, taps: &Taps) -> Vec<f32> {
        let (outer, inner) = (shape[..axis].iter().product::<usize>(), shape[axis + 1..].iter().product::<usize>());
        let len = shape[axis];
        shape[axis] = taps.len();
        let mut y = vec![0f32; outer * taps.len() * inner];
        for (k, line) in y.chunks_exact_mut(inner.max(1)).enumerate() {
            let (o, at) = (k / taps.len(), k % taps.len());
            for &(from, weight) in &taps[at] {
                let from = &x[(o * len + from) * inner..][..inner];
                line.iter_mut().zip(from).for_each(|(y, x)| *y += weight * x);
            }
        }
        y
    }
}

impl Kernel for Resize {
    fn name(&self) -> &'static str {
        "Resize"
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>> {
        let x = required(inputs, 0)?;
        let known: TVec<Option<Arc<Tensor>>> = (0..4)
            .map(|slot| match optional(inputs, slot) {
                Some(_) if slot > 0 => constant(inputs, slot, "what decides the size").map(Some),
                _ => Ok(None),
            })
            .collect::<TractResult<_>>()?;
        let axes = self.plan(&concrete(&x.shape)?, |slot| Ok(known[slot].as_deref()))?;
        Ok(tvec![fact(x.dtype, &axes.iter().map(|a| a.out).collect::<Vec<_>>())])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>> {
        let x = required(inputs, 0)?;
        let axes = self.plan(x.shape(), |slot| Ok(optional(inputs, slot)))?;
        let out: Vec<usize> = axes.iter().map(|a| a.out).collect();
        if out.contains(&0) {
            return Ok(tvec![Tensor::zero_dt(x.datum_type(), &out)?]);
        }
        let crop = self.coordinates == Coordinates::TfCropAndResize;
        // A scale of 1 changes nothing, but a cut may.
        let same = |a: &Axis| a.len == a.out && a.scale == 1.0 && (!crop || a.roi == [0.0, 1.0]);
        if let Mode::Nearest(nearest) = self.mode
            && !crop
        {
            let place = |a: &Axis, i: usize| if same(a) { i } else { nearest.of(a.at(self.coordinates, i), a.len) };
            let places: Vec<Vec<usize>> = axes.iter().map(|a| (0..a.out).map(|i| place(a, i)).collect()).collect();
            let steps = strides(x.shape());
            let from = |index: &[usize]| Some(index.iter().enumerate().map(|(k, &i)| places[k][i] * steps[k]).sum());
            return Ok(tvec![pick(x, &out, None, from)?]);
        }
        let mut shape: Vec<usize> = x.shape().to_vec();
        let mut values = f32s(x)?;
        for (k, a) in axes.iter().enumerate().filter(|(_, a)| !same(a)) {
            values = self.along(&values, &mut shape, k, &a.taps(self.mode, self.coordinates));
        }
        if crop {
            let inside = |a: &Axis| -> Vec<bool> {
                (0..a.out).map(|i| (0.0..=(a.len - 1) as f32).contains(&a.at(self.coordinates, i)) || same(a)).collect()
            };
            let inside: Vec<Vec<bool>> = axes.iter().map(inside).collect();
            super::common::for_each_index(&out, |flat, index| {
                if !index.iter().enumerate().all(|(k, &i)| inside[k][i]) {
                    values[flat] = self.extrapolation;
                }
                Ok(())
            })?;
        }
        Ok(tvec![narrowed(x.datum_type(), &out, &values)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resize(mode: Mode, coordinates: Coordinates, x: &Tensor, sizes: &[i64]) -> TractResult<Vec<f32>> {
        let slots = [Some(1), Some(2), Some(3)];
        let policy = Policy::Stretch;
        let op = Resize { mode, coordinates, axes: None, policy, extrapolation: 9.0, slots, scales: None };
        let roi = tensor1(&[0f32, 2.0]);
        op.eval(&[Some(x), Some(&roi), None, Some(&tensor1(sizes))]).and_then(|y| f32s(&y[0]))
    }

    #[test]
    fn ties_edges_and_crops() {
        let x = tensor1(&[0f32, 10.0, 20.0]);
        let half = Coordinates::parse("half_pixel").unwrap();
        assert_eq!(resize(Mode::Linear, half, &x, &[6]).unwrap(), [0.0, 2.5, 7.5, 12.5, 17.5, 20.0]);
        let corners = Coordinates::parse("align_corners").unwrap();
        assert_eq!(resize(Mode::Linear, corners, &x, &[5]).unwrap(), [0.0, 5.0, 10.0, 15.0, 20.0]);
        assert_eq!(resize(Mode::Linear, corners, &x, &[1]).unwrap(), [0.0]);
        assert_eq!(
            resize(Mode::Nearest(Nearest::PreferFloor), corners, &x, &[5]).unwrap(),
            [0.0, 0.0, 10.0, 10.0, 20.0]
        );
        assert_eq!(
            resize(Mode::Nearest(Nearest::PreferCeil), corners, &x, &[5]).unwrap(),
            [0.0, 10.0, 10.0, 20.0, 20.0]
        );
        assert_eq!(resize(Mode::Linear, Coordinates::TfCropAndResize, &x, &[3]).unwrap(), [0.0, 20.0, 9.0]);
    }

    #[test]
    fn nothing_and_too_much() {
        let half = Coordinates::parse("half_pixel").unwrap();
        let none = Tensor::zero::<f32>(&[0]).unwrap();
        assert!(resize(Mode::Linear, half, &none, &[2]).is_err());
        let x = tensor1(&[1f32]);
        assert!(resize(Mode::Linear, half, &x, &[0]).unwrap().is_empty());
        assert!(resize(Mode::Linear, half, &x, &[-1]).is_err() && resize(Mode::Linear, half, &x, &[i64::MAX]).is_err());
    }
}
