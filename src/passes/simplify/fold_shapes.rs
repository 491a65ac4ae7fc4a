//! Shape arithmetic whose result is known becomes a constant.

use super::fold_constants::replace_by_constant;
use crate::error::Result;
use crate::ir::{DType, Dim, Graph, NodeId, Tensor, Type};
use crate::ops;
use crate::ops::spec::OpKey;
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `y = op(...)`, a small integer tensor all of whose elements inference knows, such as the `Shape` of a value of
/// known shape or what `Gather` takes from it. After: initializer `y`.
///
/// When: the node has one output and no body, its operator is known, and the elements fit the output's type.
/// Why it is equal: inference derived the elements from types and constants alone.
pub struct FoldShapes;

impl Rewrite for FoldShapes {
    fn name(&self) -> &'static str {
        "fold_shapes"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn roots(&self) -> &'static [OpKey] {
        &[]
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        let node = graph.node(id);
        let plain = node.output_slots == 1 && !node.op.is("Constant") && node.bodies().next().is_none();
        if !plain || ops::spec(&node.op).is_none() {
            return Ok(None);
        }
        let Some(y) = graph.output(id, 0) else { return Ok(None) };
        let Some(tensor) = cx.data.get(&y).zip(graph.ty(y)).and_then(|(data, ty)| known(data, ty)) else {
            return Ok(None);
        };
        let mut patch = Patch::default();
        replace_by_constant(&mut patch, graph, y, tensor);
        Ok(Some(patch))
    }
}

/// The tensor, where every element is known and the shape agrees.
fn known(data: &[Dim], ty: &Type) -> Option<Tensor> {
    let dims = ty.static_shape()?;
    if dims.iter().product::<usize>() != data.len() {
        return None;
    }
    let number = |d: &Dim| if let Dim::Known(n) = d { Some(*n) } else { None };
    let numbers: Vec<i64> = data.iter().map(number).collect::<Option<_>>()?;
    match ty.elem()? {
        DType::I64 => Some(Tensor::from_i64(&dims, &numbers)),
        DType::I32 => {
            let small: Option<Vec<i32>> = numbers.iter().map(|&n| i32::try_from(n).ok()).collect();
            Some(Tensor::from_i32(&dims, &small?))
        }
        DType::Bool => {
            let bits: Option<Vec<u8>> = numbers.iter().map(|&n| u8::try_from(n).ok().filter(|&b| b < 2)).collect();
            Some(Tensor::raw(DType::Bool, &dims, bits?))
        }
        _ => None,
    }
}
