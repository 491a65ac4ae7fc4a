//! In ONNX Runtime's operators.

use super::Writer;
use crate::error::Result;
use crate::ir::{Dim, NodeId, OpId, Port, Tensor, ValueId};
use crate::ops::spec::ComputeRole;
use crate::passes::Ref;

impl Writer<'_> {
    /// `DynamicQuantizeMatMul` where no other layer takes the input, else `MatMulIntegerToFloat`; with a bias, that of an
    /// Add behind a MatMul too.
    pub(super) fn contrib(&mut self, id: NodeId, role: &ComputeRole) -> Result<()> {
        let (x, w) = (self.input(id, role.activation)?, self.input(id, role.weight)?);
        let weight = self.weight(w, role, 0)?;
        let own = self.bias(id, role, 0)?;
        let (y, bias) = match own {
            Some(bias) => (self.output(id)?, Some(bias)),
            None => self.added(id, role)?,
        };
        let alone = self.takers.get(&x) == Some(&1);
        let op = if alone { "DynamicQuantizeMatMul" } else { "MatMulIntegerToFloat" };
        let mut inputs: Vec<Option<Ref>> = if alone {
            vec![Some(x.into()), Some(weight.data), Some(weight.scale), weight.zero_point, bias]
        } else {
            let [codes, scale, zero] = self.codes(x);
            let (w, s) = (weight.data, weight.scale);
            vec![Some(codes), Some(w), Some(scale), Some(s), Some(zero), weight.zero_point, bias]
        };
        while inputs.last().is_some_and(Option::is_none) {
            inputs.pop();
        }
        let node = self.like(id, OpId::microsoft(op));
        let ty = self.graph.ty(y).cloned();
        let out = self.patch.node(node, &inputs, &format!("{}_float", self.graph.name(y)), ty);
        self.patch.replace(y, out);
        Ok(())
    }

    /// The output of a MatMul and the bias behind it: of an Add that alone takes it, with one constant per channel.
    fn added(&self, id: NodeId, role: &ComputeRole) -> Result<(ValueId, Option<Ref>)> {
        let y = self.output(id)?;
        let w = self.input(id, role.weight)?;
        let channels = self.graph.constant(w).and_then(|t| t.dims.get(role.weight_axis).copied());
        let per_channel = |t: &&Tensor| t.rank() == 1 && Some(t.len()) == channels;
        let found = self.graph.only_use(y).filter(|u| self.graph.node(u.node).op.is("Add")).and_then(|u| {
            let Port::In(slot) = u.port else { return None };
            let bias = self.graph.input(u.node, 1 - slot as usize)?;
            self.graph.constant(bias).filter(per_channel)?;
            Some((self.graph.output(u.node, 0)?, bias))
        });
        let has_rank = self.graph.ty(y).and_then(|t| t.shape()).is_some_and(|s: &[Dim]| !s.is_empty());
        Ok(match found.filter(|_| has_rank) {
            Some((sum, bias)) => (sum, Some(bias.into())),
            None => (y, None),
        })
    }
}
