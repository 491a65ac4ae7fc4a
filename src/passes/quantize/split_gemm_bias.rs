//! Makes room for QLinearMatMul, which has no bias.

use super::options::{Format, Mode, QuantizeOptions, Runtime};
use super::structure::{Kind, Structure};
use crate::error::Result;
use crate::ir::{Graph, Model, Node, NodeId, OpId};
use crate::ops::spec::ComputeRole;
use crate::passes::{Effect, Outcome, Pass, PassContext, Patch};

/// Before: `y = Gemm(x, W, b)`. After: `p = Gemm(x, W)`, `y = Add(p, b)`.
///
/// When: the Gemm will be quantized in standard QLinear operators; QLinearMatMul has no bias, and the product's own
/// range is needed, so it must be a value before calibration. It takes no fuel: quantization cannot go on without it.
/// Why it is equal: Gemm adds `b` last; alpha and beta are 1 where it is quantizable.
pub struct SplitGemmBias {
    /// The options of the quantization that follows.
    pub options: QuantizeOptions,
}

impl Pass for SplitGemmBias {
    fn name(&self) -> &'static str {
        "split_gemm_bias"
    }

    fn effect(&self) -> Effect {
        Effect::Rounding
    }

    fn run(&self, model: &mut Model, _: &PassContext) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        if self.options.mode != Mode::Static
            || self.options.format != Format::Qlinear
            || self.options.runtime != Runtime::Portable
        {
            return Ok(outcome);
        }
        let structure = Structure::decide(model, &self.options)?;
        let graph = &model.graph;
        let mut patch = Patch::default();
        for (id, kind) in structure.integer_nodes() {
            let Kind::Compute(role) = kind else { continue };
            let has_bias = role.bias.is_some_and(|slot| graph.input(id, slot).is_some());
            if graph.node(id).op.is("Gemm") && has_bias && split(graph, id, role, &mut patch).is_some() {
                outcome.changes += 1;
            }
        }
        patch.apply(&mut model.graph)?;
        Ok(outcome)
    }
}

fn split(graph: &Graph, id: NodeId, role: &ComputeRole, patch: &mut Patch) -> Option<()> {
    let bias = graph.input(id, role.bias?)?;
    let y = graph.output(id, 0)?;
    let inputs = [graph.input(id, 0).map(Into::into), graph.input(id, 1).map(Into::into)];
    let ty = graph.ty(y).cloned();
    let hint = format!("{}_product", graph.name(y));
    let mut gemm = graph.node(id).clone();
    gemm.shell = None;
    let rank = gemm.rank;
    let product = patch.node(gemm, &inputs, &hint, ty.clone());
    let mut add = Node::new(OpId::onnx("Add"));
    add.rank = rank;
    let sum = patch.node(add, &[Some(product), Some(bias.into())], graph.name(y), ty);
    patch.replace(y, sum);
    Some(())
}
