//! Resize by a factor of 1 goes.

use super::support::{axes, bypass, dims, equal, exact_rule, shape};
use crate::ir::{AttributeValue, Graph, NodeId};
use crate::passes::{Patch, RuleContext};

/// Before: `y = Resize(x)` or `y = Upsample(x)` with every scale 1, or with the sizes that `x` has. After: uses of `y`
/// use `x`.
///
/// When: the scales or sizes are known; the mode is nearest, linear or cubic without antialiasing; coordinates are
/// transformed by half_pixel, half_pixel_symmetric, pytorch_half_pixel, asymmetric or align_corners; the aspect ratio is
/// not kept.
/// Why it is equal: each of those maps the output coordinate `i` to the input coordinate `i`, where every mode
/// takes the element itself. tf_crop_and_resize reads a region, and tf_half_pixel_for_nn maps to `i + 0.5`.
pub struct EliminateResize;

exact_rule!(EliminateResize, "eliminate_resize", ["Resize", "Upsample"], apply);

fn apply(graph: &Graph, id: NodeId, cx: &RuleContext) -> Option<Patch> {
    let x = graph.input(id, 0)?;
    let node = graph.node(id);
    let text = |name, default| if node.attribute(name).is_none() { Some(default) } else { node.string(name) };
    let by = text("coordinate_transformation_mode", "half_pixel")?;
    let known = ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "asymmetric", "align_corners"];
    let plain = known.contains(&by)
        && ["nearest", "linear", "bilinear", "cubic"].contains(&text("mode", "nearest")?)
        && text("keep_aspect_ratio_policy", "stretch")? == "stretch"
        && matches!(node.attribute("antialias"), None | Some(AttributeValue::Int(0)));
    let same = plain
        && if cx.opset >= 11 && graph.input(id, 3).is_some() {
            has_sizes_of_input(graph, id, cx)?
        } else {
            scales(graph, id, cx)?.iter().all(|&s| s == 1.0)
        };
    same.then(|| bypass(graph, id, x))?
}

fn scales(graph: &Graph, id: NodeId, cx: &RuleContext) -> Option<Vec<f32>> {
    if cx.opset < 9 {
        return match graph.node(id).attribute("scales")? {
            AttributeValue::Floats(v) => Some(v.clone()),
            _ => None,
        };
    }
    let slot = if cx.opset >= 11 { 2 } else { 1 };
    let t = cx.constant(graph, graph.input(id, slot)?)?;
    t.to_f32().ok().filter(|s| !s.is_empty())
}

fn has_sizes_of_input(graph: &Graph, id: NodeId, cx: &RuleContext) -> Option<bool> {
    let sizes = dims(graph, cx, graph.input(id, 3)?)?;
    let shape = shape(graph, graph.input(id, 0)?)?;
    let resized = match graph.node(id).attribute("axes") {
        None => (0..shape.len()).collect(),
        Some(AttributeValue::Ints(list)) => axes(list, shape.len())?,
        Some(_) => return None,
    };
    Some(resized.len() == sizes.len() && resized.iter().zip(&sizes).all(|(&a, s)| equal(&shape[a], s)))
}
