//! ConstantOfShape nodes become initializers.

use crate::error::Result;
use crate::ir::{Graph, Node, NodeId, Tensor};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::HashMap;

/// Before: `y = ConstantOfShape<value = e>(shape)`. After: initializer `y`, every element `e` (without `value`: f32 0).
///
/// When: `shape` is a constant, `y` takes at most so many bytes (a node takes no room in the file) and is not a graph
/// output, and `e` has whole bytes.
/// Why it is equal: an initializer that is not a graph input is a constant, and so is `shape`.
pub struct FoldConstantOfShape {
    limit: usize,
    /// The longest run made so far of each element: shorter ones share its bytes.
    made: RefCell<HashMap<Vec<u8>, Bytes>>,
}

impl FoldConstantOfShape {
    /// Makes tensors of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, made: RefCell::default() }
    }

    /// With the limit where weights are wanted, as for quantization.
    pub fn for_weights() -> Self {
        Self::new(64 << 20)
    }

    /// `count` times the bytes of one element.
    fn run(&self, element: &[u8], count: usize) -> Bytes {
        let mut made = self.made.borrow_mut();
        let longest = made.entry(element.to_vec()).or_default();
        let bytes = element.len() * count;
        if longest.len() < bytes {
            *longest = element.repeat(count).into();
        }
        longest.slice(..bytes)
    }

    /// The tensor that the node makes; `None` where it is too large, or its attributes are not understood.
    fn repeated(&self, node: &Node, shape: &Tensor) -> Option<Tensor> {
        let zero = Tensor::from_f32(&[1], &[0.0]);
        let element = match node.attributes.as_slice() {
            [] => &zero,
            [_] => node.tensor("value").filter(|e| e.len() == 1 && e.dtype.bits() >= 8)?,
            _ => return None,
        };
        let dims: Option<Vec<usize>> = shape.to_i64().ok()?.iter().map(|&d| usize::try_from(d).ok()).collect();
        let dims = dims?;
        let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        element.dtype.bytes_for(count).filter(|&bytes| bytes <= self.limit)?;
        Some(Tensor::raw(element.dtype, &dims, self.run(&element.bytes().ok()?, count)))
    }
}

impl Rewrite for FoldConstantOfShape {
    fn name(&self) -> &'static str {
        "fold_constant_of_shape"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("ConstantOfShape")] }
    }

    fn rewrite(&self, graph: &Graph, node: NodeId, cx: &RuleContext) -> Result<Option<Patch>> {
        let Some(y) = graph.output(node, 0).filter(|&y| !graph.is_output(y)) else { return Ok(None) };
        let Some(shape) = graph.input(node, 0).and_then(|s| graph.constant(s)) else { return Ok(None) };
        let Some(tensor) = self.repeated(graph.node(node), shape) else { return Ok(None) };
        if !cx.has_room(tensor.stored_bytes(), 0) {
            return Ok(None);
        }
        cx.spend(tensor.stored_bytes(), 0);
        let mut patch = Patch::default();
        let folded = patch.constant(graph.name(y), tensor);
        patch.replace(y, folded);
        Ok(Some(patch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::text::parse_model;
    use crate::ir::Model;
    use crate::passes::simplify::LiftConstants;
    use crate::passes::{Pass, PassContext, RewritePass};

    /// Folds in a model with these nodes, after lifting constants.
    fn fold(nodes: &str) -> Model {
        let head = "<ir_version: 8, opset_import: [\"\" : 17]> g (float[2, 2] x, int64[2] s) => (float[2, 2] y)";
        let mut model = parse_model(&format!("{head} {{ {nodes} }}")).unwrap();
        let pass = RewritePass::new(
            "lift_constants",
            vec![Box::new(LiftConstants), Box::new(FoldConstantOfShape::for_weights())],
        );
        pass.run(&mut model, &PassContext::default()).unwrap();
        model
    }

    fn weight(model: &Model) -> Option<&Tensor> {
        model.graph.constant(model.graph.find("w")?)
    }

    #[test]
    fn what_is_constant_is_folded() {
        let shape = "s1 = Constant <value = int64[2] {2, 2}> ()";
        let m = fold(&format!("{shape} w = ConstantOfShape <value = float[1] {{1.5}}> (s1) y = MatMul (x, w)"));
        assert_eq!(weight(&m), Some(&Tensor::from_f32(&[2, 2], &[1.5; 4])));
        assert_eq!(m.graph.nodes().count(), 1);
        let m = fold(&format!("{shape} w = ConstantOfShape (s1) y = MatMul (x, w)"));
        assert_eq!(weight(&m), Some(&Tensor::from_f32(&[2, 2], &[0.0; 4])));
        let scalar = "s1 = Constant <value = int64[0] {}> () w = ConstantOfShape <value = int32[1] {7}> (s1)";
        let m = fold(&format!("{scalar} c = Cast <to = 1> (w) y = Add (x, c)"));
        assert_eq!(weight(&m), Some(&Tensor::from_i32(&[], &[7])));
    }

    #[test]
    fn the_rest_stays() {
        let stays = |nodes: &str| {
            let m = fold(nodes);
            let kept = m.graph.nodes().any(|n| m.graph.node(n).op.is("ConstantOfShape"));
            assert!(kept && weight(&m).is_none(), "{nodes}");
        };
        stays("w = ConstantOfShape (s) y = MatMul (x, w)");
        stays("s1 = Constant <value = int64[2] {2, 2}> () y = ConstantOfShape (s1)");
        let large = "s1 = Constant <value = int64[2] {4097, 4096}> ()";
        stays(&format!("{large} w = ConstantOfShape (s1) r = ReduceSum (w) y = Add (x, r)"));
        for dims in [[-1, 2], [i64::MAX, i64::MAX]] {
            let node = Node::new(crate::ir::OpId::onnx("ConstantOfShape"));
            let rule = FoldConstantOfShape::new(usize::MAX);
            assert!(rule.repeated(&node, &Tensor::from_i64(&[2], &dims)).is_none(), "{dims:?}");
        }
    }
}
