//! Where a layer's bias is, so that it can take up the mean of a rounding error.

use crate::ir::{Graph, NodeId, Tensor, ValueId};

/// The bias of a layer.
#[derive(Clone, Debug)]
pub struct Site {
    /// The node that adds it: the layer itself, or an Add behind it.
    pub node: NodeId,
    /// Its input slot there.
    pub slot: usize,
    /// The constant; `None` where the slot is empty.
    pub bias: Option<ValueId>,
}

impl Site {
    /// The bias of a layer with `channels` outputs, if there is room for one: constant, of one element per channel, and used
    /// by nobody else.
    pub fn of(graph: &Graph, id: NodeId, channels: usize) -> Option<Self> {
        let op = &graph.node(id).op;
        if op.is("MatMul") {
            return Self::behind(graph, id, channels);
        }
        let plain = |name: &str| graph.node(id).float(name).unwrap_or(1.0) == 1.0;
        let room = op.is("Conv") || (op.is("Gemm") && plain("alpha") && plain("beta"));
        if !room {
            return None;
        }
        match graph.input(id, 2) {
            Some(bias) if !is_own(graph, bias, channels) => None,
            bias => Some(Self { node: id, slot: 2, bias }),
        }
    }

    /// An Add of a constant that is the only user of a product.
    fn behind(graph: &Graph, id: NodeId, channels: usize) -> Option<Self> {
        let product = graph.output(id, 0)?;
        let add = graph.only_use(product)?.node;
        if !graph.node(add).op.is("Add") {
            return None;
        }
        let slot = (0..2).find(|&slot| graph.input(add, slot) != Some(product))?;
        let bias = graph.input(add, slot).filter(|&b| is_own(graph, b, channels))?;
        Some(Self { node: add, slot, bias: Some(bias) })
    }

    /// The bias with `shift` added.
    pub fn corrected(&self, graph: &Graph, shift: &[f32]) -> Option<Tensor> {
        let Some(bias) = self.bias else { return Some(Tensor::from_f32(&[shift.len()], shift)) };
        let tensor = graph.constant(bias)?;
        let sum: Vec<f32> = tensor.to_f32().ok()?.iter().zip(shift).map(|(b, s)| b + s).collect();
        Some(Tensor::from_f32(&tensor.dims, &sum))
    }
}

fn is_own(graph: &Graph, bias: ValueId, channels: usize) -> bool {
    let fits = |t: &Tensor| t.dtype == crate::ir::DType::F32 && t.len() == channels && t.dims.last() == Some(&channels);
    graph.constant(bias).is_some_and(fits) && graph.only_use(bias).is_some()
}
