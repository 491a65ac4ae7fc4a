//! GridSample: operator set 20 renamed the modes and allows any number of spatial axes.

use crate::error::{Error, Result};
use crate::ops::axes::{self, AxisLinks, LinkContext, input};
use crate::ops::rules::{changed, output, string};
use crate::ops::spec::{InferContext, Inferred, OpSpec, Schema, Upgrade, op};

/// Samples an image at the positions of a grid.
pub struct GridSample;

impl OpSpec for GridSample {
    fn schemas(&self) -> &'static [Schema] {
        &const { [op("GridSample", &[16, 20, 22])] }
    }

    fn infer(&self, cx: &InferContext) -> Result<Vec<Inferred>> {
        let (Some(x), Some(grid)) = (cx.shape(0), cx.shape(1)) else { return output(cx.elem(0), None) };
        if x.len() < 3 || x.len() != grid.len() {
            return Err(Error::invalid(format!("input has rank {} and grid rank {}", x.len(), grid.len())));
        }
        output(cx.elem(0), Some([&x[..2], &grid[1..grid.len() - 1]].concat()))
    }

    fn upgrade(&self, cx: &InferContext, to: i64) -> Upgrade {
        if cx.opset >= 20 || to < 20 {
            return Upgrade::Same;
        }
        let mode = match string(cx, "mode", "bilinear") {
            Ok("bilinear") => "linear",
            Ok("bicubic") => "cubic",
            Ok("nearest") => "nearest",
            _ => return Upgrade::Impossible("its mode has no successor".into()),
        };
        let mut node = cx.node.clone();
        node.set("mode", mode.into());
        changed(node)
    }

    fn axis_links(&self, _: &LinkContext) -> Option<AxisLinks> {
        let mut links = AxisLinks::default();
        links.same_rest(0, 0, 0..2);
        links.same(input(1, 0), axes::output(0, 0));
        Some(links)
    }
}
