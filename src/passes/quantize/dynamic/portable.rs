//! In operators of the standard.

use super::{Writer, shaped};
use crate::error::Result;
use crate::ir::{DType, Node, NodeId, OpId, Type};
use crate::ops::spec::ComputeRole;

impl Writer<'_> {
    /// `Cast(MatMulInteger) * (input scale * weight scale) + bias`, in the order that ONNX Runtime fuses.
    pub(super) fn portable(&mut self, id: NodeId, role: &ComputeRole) -> Result<()> {
        let (x, w, y) = (self.input(id, role.activation)?, self.input(id, role.weight)?, self.output(id)?);
        let conv = self.graph.node(id).op.is("Conv");
        let rank = self.graph.constant(w).map_or(2, |t| t.rank());
        let trailing = if conv { rank.saturating_sub(2) } else { 0 };
        let [codes, scale, zero] = self.codes(x);
        let weight = self.weight(w, role, trailing + usize::from(conv && rank < 2))?;
        let bias = self.bias(id, role, trailing)?;
        let mut node = self.like(id, OpId::onnx(if conv { "ConvInteger" } else { "MatMulInteger" }));
        if conv {
            node.attributes = self.graph.node(id).attributes.clone();
        }
        let name = self.graph.name(y);
        let inputs = [Some(codes), Some(weight.data), Some(zero), weight.zero_point];
        let inputs = if weight.zero_point.is_some() { &inputs[..] } else { &inputs[..3] };
        let sums = self.patch.node(node, inputs, &format!("{name}_sums"), shaped(self.graph, y, DType::I32));
        let order = self.graph.node(id).rank;
        let ordered = |op: &str| {
            let mut node = Node::new(OpId::onnx(op));
            node.rank = order;
            node
        };
        let mut cast = ordered("Cast");
        cast.set("to", i64::from(DType::F32.onnx()).into());
        let float = |hint: &str| format!("{name}_{hint}");
        let ty: Option<Type> = self.graph.ty(y).cloned();
        let units = self.patch.node(cast, &[Some(sums)], &float("units"), ty.clone());
        let unit = self.patch.node(ordered("Mul"), &[Some(scale), Some(weight.scale)], &float("unit"), None);
        let mut out = self.patch.node(ordered("Mul"), &[Some(units), Some(unit)], &float("product"), ty.clone());
        if let Some(bias) = bias {
            out = self.patch.node(ordered("Add"), &[Some(out), Some(bias)], &float("float"), ty);
        }
        self.patch.replace(y, out);
        Ok(())
    }
}
