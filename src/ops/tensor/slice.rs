//! Slice: bounds are attributes before operator set 10, inputs as of it.

use crate::error::{Error, Result};
use crate::ir::{Dim, Tensor};
use crate::math::{Array, View};
use crate::ops::axes::{AxisLinks, AxisMap, Kept, LinkContext, Narrowed, input, output as out};
use crate::ops::gradient::{Backward, Computed, Element, Forward, Gradients, Rule, rule};
use crate::ops::rules::{axis, ints, is_f32, known_vector, output, vector, without};
use crate::ops::spec::{InferContext, Inferred, OpSpec, QuantRole, Schema, Upgrade, op};

/// Selects a range with a step along some axes.
pub struct Slice;

/// Per sliced axis: start, end and step as far as they are known.
struct Cut {
    axis: usize,
    start: Option<i64>,
    end: Dim,
    step: Option<i64>,
}

impl OpSpec for Slice {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("Slice", &[1, 10, 11, 13])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let Some(shape) = cx.shape(0) else { return output(cx.elem(0), None) };
        let Some(cuts) = cuts(cx, shape.len())? else {
            return output(cx.elem(0), Some(vec![Dim::Unknown; shape.len()]));
        };
        let mut sliced = shape.to_vec();
        for cut in &cuts {
            sliced[cut.axis] = length(cut, &shape[cut.axis]);
        }
        let data = if shape.len() == 1 { data(cx, &cuts) } else { None };
        let mut out = output(cx.elem(0), Some(sliced))?;
        if let [inferred] = &mut out[..] {
            inferred.data = data;
        }
        Ok(out)
    }

    fn gradient(&self, _cx: &InferContext) -> Option<Rule> {
        rule!(forward, backward)
    }

    fn quant(&self, cx: &InferContext) -> QuantRole {
        if is_f32(cx, 0) { QuantRole::PassThrough { input: 0 } } else { QuantRole::Opaque }
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        if cx.opset >= 10 || to < 10 {
            return Upgrade::Same;
        }
        let mut new_inputs = vec![];
        for (slot, name) in [(1, "starts"), (2, "ends"), (3, "axes")] {
            match cx.node.ints(name) {
                Some(v) => new_inputs.push((slot, Tensor::from_i64(&[v.len()], v))),
                None if slot == 3 => {}
                None => return Upgrade::Impossible(format!("its attribute \"{name}\" is missing")),
            }
        }
        Upgrade::Changed { node: Box::new(without(cx.node, &["starts", "ends", "axes"])), new_inputs }
    }

    fn axis_links(&self, cx: &LinkContext) -> Option<AxisLinks> {
        let shape = cx.cx.shape(0)?;
        let cuts = cuts(cx.cx, shape.len()).ok()??;
        let mut links = AxisLinks::default();
        for (k, size) in shape.iter().enumerate() {
            match cuts.iter().find(|c| c.axis == k) {
                None => links.same(input(0, k), out(0, k)),
                Some(cut) => {
                    let Some((start, _, step)) = size.known().and_then(|n| range(cut, n as i64)) else { continue };
                    links.link(out(0, k), input(0, k), AxisMap::Offset { start, step });
                    links.free(input(0, k));
                }
            }
        }
        Some(links)
    }

    fn narrow(&self, cx: &LinkContext, kept: &Kept) -> Narrowed {
        let Some(shape) = cx.cx.shape(0) else { return Narrowed::Same };
        let Ok(Some(cuts)) = cuts(cx.cx, shape.len()) else { return Narrowed::Same };
        if !cuts.iter().any(|c| kept.of(input(0, c.axis)).is_some()) {
            return Narrowed::Same;
        }
        if cx.cx.opset < 10 {
            return Narrowed::Impossible("its bounds are attributes".into());
        }
        let mut lists: [Vec<i64>; 4] = Default::default();
        for cut in &cuts {
            let Some(mut bounds) = bounds(cut, &shape[cut.axis]) else {
                return Narrowed::Impossible("its bounds are not known".into());
            };
            if let (Some(left), Some(n)) = (kept.of(input(0, cut.axis)), shape[cut.axis].known()) {
                match narrowed(cut, n as i64, left, kept.of(out(0, cut.axis))) {
                    Some(b) => bounds = b,
                    None => return Narrowed::Impossible("what it selects is no range any more".into()),
                }
            }
            lists[0].push(bounds.0);
            lists[1].push(bounds.1);
            lists[2].push(cut.axis as i64);
            lists[3].push(bounds.2);
        }
        let tensor = |v: &Vec<i64>| Tensor::from_i64(&[v.len()], v);
        let inputs = lists.iter().enumerate().map(|(k, v)| (k + 1, tensor(v))).collect();
        Narrowed::with_inputs(cx.cx.node, inputs)
    }

    fn selects(&self, cx: &InferContext) -> Option<Vec<usize>> {
        let [size] = cx.shape(0)? else { return None };
        let n = size.known()? as i64;
        let cuts = cuts(cx, 1).ok()??;
        let [cut] = &cuts[..] else { return None };
        let (start, len, step) = range(cut, n)?;
        (0..len).map(|k| usize::try_from(start + k * step).ok()).collect()
    }
}

/// The lists of a node, as long as each other.
struct Bounds {
    starts: Vec<Dim>,
    ends: Vec<Dim>,
    axes: Option<Vec<i64>>,
    steps: Option<Vec<Dim>>,
}

fn from_attributes(cx: &InferContext) -> Result<Bounds> {
    let dims = |name| -> Result<Vec<Dim>> {
        let missing = || Error::invalid(format!("attribute \"{name}\" is missing"));
        Ok(ints(cx, name)?.ok_or_else(missing)?.iter().copied().map(Dim::Known).collect())
    };
    let axes = ints(cx, "axes")?.map(<[i64]>::to_vec);
    Ok(Bounds { starts: dims("starts")?, ends: dims("ends")?, axes, steps: None })
}

/// `None` where it is not known which axes are sliced.
fn from_inputs(cx: &InferContext, rank: usize) -> Option<Bounds> {
    let axes = known_vector(cx, 3);
    if cx.present(3) && axes.is_none() {
        return None;
    }
    let len = [1, 2, 3, 4].into_iter().find_map(|k| match cx.shape(k) {
        Some([n]) => n.known(),
        _ => vector(cx, k).map(|v| v.len()),
    });
    let len = len.filter(|&n| n <= rank)?;
    let or_unknown = |k| vector(cx, k).unwrap_or_else(|| vec![Dim::Unknown; len]);
    Some(Bounds { starts: or_unknown(1), ends: or_unknown(2), axes, steps: cx.present(4).then(|| or_unknown(4)) })
}

fn cuts(cx: &InferContext, rank: usize) -> Result<Option<Vec<Cut>>> {
    let bounds = if cx.opset < 10 { Some(from_attributes(cx)?) } else { from_inputs(cx, rank) };
    let Some(Bounds { starts, ends, axes, steps }) = bounds else { return Ok(None) };
    let n = starts.len();
    let axes = axes.unwrap_or_else(|| (0..n as i64).collect());
    if ends.len() != n || axes.len() != n || steps.as_ref().is_some_and(|s| s.len() != n) {
        return Err(Error::invalid("starts, ends, axes and steps differ in length"));
    }
    let known = |d: &Dim| if let Dim::Known(n) = d { Some(*n) } else { None };
    let cuts = axes.iter().enumerate().map(|(i, &a)| {
        let step = steps.as_ref().map_or(Some(1), |s| known(&s[i]));
        if step == Some(0) {
            return Err(Error::invalid("a step is 0"));
        }
        Ok(Cut { axis: axis(a, rank)?, start: known(&starts[i]), end: ends[i].clone(), step })
    });
    cuts.collect::<Result<_>>().map(Some)
}

/// First element, number of elements and step of a cut through `n` elements.
fn range(cut: &Cut, n: i64) -> Option<(i64, i64, i64)> {
    let (start, Dim::Known(end), step) = (cut.start?, &cut.end, cut.step?) else { return None };
    let from_front = |x: i64| if x < 0 { x.saturating_add(n) } else { x };
    let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
    let start = from_front(start).clamp(low.max(0).min(high), high);
    let end = from_front(*end).clamp(low, high);
    let span = i128::from(end) - i128::from(start);
    let step_wide = i128::from(step);
    let len = (span + step_wide - step_wide.signum()) / step_wide;
    Some((start, i64::try_from(len.max(0)).ok()?, step))
}

fn length(cut: &Cut, size: &Dim) -> Dim {
    if let Dim::Known(n) = size {
        return range(cut, *n).map_or(Dim::Unknown, |(_, len, _)| Dim::Known(len));
    }
    // All of an axis whose size is not known.
    let to_end = matches!(cut.end, Dim::Known(e) if e >= i64::from(i32::MAX))
        || (matches!(size, Dim::Sym(_)) && cut.end == *size);
    if cut.start == Some(0) && cut.step == Some(1) && to_end { size.clone() } else { Dim::Unknown }
}

fn data(cx: &InferContext, cuts: &[Cut]) -> Option<Vec<Dim>> {
    let mut data = vector(cx, 0)?;
    for cut in cuts {
        let (start, len, step) = range(cut, data.len() as i64)?;
        let at = |k: i64| usize::try_from(step.checked_mul(k)?.checked_add(start)?).ok();
        data = (0..len).map(|k| data.get(at(k)?).cloned()).collect::<Option<_>>()?;
    }
    Some(data)
}

/// Bounds of a cut that are known: start, end, step.
fn bounds(cut: &Cut, _size: &Dim) -> Option<(i64, i64, i64)> {
    let Dim::Known(end) = cut.end else { return None };
    Some((cut.start?, end, cut.step?))
}

/// The cut through what is left of an axis of `n` elements that selects what is left of the output: start, end, step.
fn narrowed(cut: &Cut, n: i64, left: &[usize], left_out: Option<&[usize]>) -> Option<(i64, i64, i64)> {
    let (start, len, step) = range(cut, n)?;
    let wanted: Vec<i64> = match left_out {
        None => (0..len).map(|k| start + k * step).collect(),
        Some(left) => left.iter().map(|&k| start + k as i64 * step).collect(),
    };
    let places: Option<Vec<i64>> =
        wanted.iter().map(|&i| left.binary_search(&usize::try_from(i).ok()?).ok().map(|at| at as i64)).collect();
    let places = places?;
    let (&first, &last) = (places.first()?, places.last()?);
    let step = match places[..] {
        [a, b, ..] => b - a,
        _ => 1,
    };
    if places.windows(2).any(|w| w[1] - w[0] != step) || step == 0 {
        return None;
    }
    // The end lies behind the last element; before the first one it is spelled as far out.
    let end = if step > 0 {
        last + 1
    } else if last == 0 {
        i64::MIN
    } else {
        last - 1
    };
    Some((first, end, step))
}

fn view(cx: &InferContext, dims: &[usize]) -> Result<View> {
    let unknown = || Error::unsupported("its bounds are not known before it is executed");
    let mut view = View::dense(dims);
    for cut in cuts(cx, dims.len())?.ok_or_else(unknown)? {
        let (start, len, step) = range(&cut, dims[cut.axis] as i64).ok_or_else(unknown)?;
        view = view.cut(cut.axis, start.max(0) as usize, len as usize, step as isize);
    }
    Ok(view)
}

fn forward<T: Element>(f: &Forward<T>) -> Result<Computed<T>> {
    let x = f.float(0)?;
    let view = view(f.cx, x.dims())?;
    Ok(Computed::one(Array::new(&view.dims, view.read(x.data()))))
}

fn backward<T: Element>(b: &Backward<T>) -> Result<Gradients<T>> {
    let mut dx = Array::zeros(b.float(0)?.dims());
    let view = view(b.cx, dx.dims())?;
    view.add_to(dx.data_mut(), b.grad()?.data());
    Ok(b.first(dx))
}
