//! Operators of tract that look at the channel axis without asking whether there is one: out of bounds, not a panic.

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// Operators whose first input is `[samples, channels, ...]`.
const OPERATORS: [&str; 9] = [
    "AveragePool",
    "BatchNormalization",
    "Conv",
    "ConvInteger",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "InstanceNormalization",
    "LRN",
    "MaxPool",
];

/// Where tract's own operators are kept in its register.
const PREFIX: &str = "Sardonyx.Unchecked.";

/// Puts a check of the rank before each of them.
pub(super) fn register(register: &mut OnnxOpRegister) {
    for name in OPERATORS {
        if let Some(own) = register.0.remove(name) {
            register.0.insert(format!("{PREFIX}{name}"), own);
            register.insert(name, build);
        }
    }
}

fn build(context: &ParsingContext, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let own = context.framework.op_register.0.get(&format!("{PREFIX}{}", node.op_type));
    let (op, more) = own.with_context(|| format!("tract has no {}", node.op_type))?(context, node)?;
    Ok((Box::new(Ranked(op)), more))
}

/// An operator of tract whose first input has an axis of channels.
#[derive(Clone, Debug)]
struct Ranked(Box<dyn InferenceOp>);

impl PartialEq for Ranked {
    fn eq(&self, _: &Self) -> bool {
        false
    }
}

impl Eq for Ranked {}

impl Op for Ranked {
    fn name(&self) -> StaticName {
        self.0.name()
    }

    not_a_typed_op!();
}

impl EvalOp for Ranked {
    fn eval_out_of_plan(&self, inputs: TVec<TValue>) -> TractResult<Option<TVec<TValue>>> {
        self.0.eval_out_of_plan(inputs)
    }
}

impl InferenceOp for Ranked {
    fn infer_facts(
        &mut self,
        inputs: TVec<&InferenceFact>,
        outputs: TVec<&InferenceFact>,
        observed: TVec<&InferenceFact>,
    ) -> TractResult<(TVec<InferenceFact>, TVec<InferenceFact>, TVec<InferenceFact>)> {
        // What tract knows of the output, it concludes about the input.
        for fact in inputs.first().into_iter().chain(outputs.first()) {
            if let Some(rank) = fact.shape.rank().concretize() {
                ensure!(rank >= 2, "{} of a value of rank {rank}: it has no axis of channels", self.0.name());
            }
        }
        self.0.infer_facts(inputs, outputs, observed)
    }

    fn observe_outlets(&self, model: &InferenceModel, node: &InferenceNode) -> TractResult<Vec<OutletId>> {
        self.0.observe_outlets(model, node)
    }

    fn incorporate(&self, model: &InferenceModel, node: &InferenceNode) -> TractResult<Option<InferenceModelPatch>> {
        self.0.incorporate(model, node)
    }

    fn nboutputs(&self) -> TractResult<usize> {
        self.0.nboutputs()
    }

    fn to_typed(
        &self,
        source: &InferenceModel,
        node: &InferenceNode,
        target: &mut TypedModel,
        mapping: &HashMap<OutletId, OutletId>,
    ) -> TractResult<TVec<OutletId>> {
        self.0.to_typed(source, node, target, mapping)
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use crate::io::Feed;
    use crate::io::text::parse_model;
    use crate::ir::Tensor;
    use crate::runtime::{Runner, RunnerOptions};

    #[test]
    fn a_value_without_channels_is_refused() {
        let model = |node: &str| {
            let text = format!(
                "<ir_version: 8, opset_import: [\"\" : 17]> g (float[a] x) => (float[b] y)
                 <float[3] s = {{1, 2, 3}}, float[3, 3, 1] w = {{1, 2, 3, 4, 5, 6, 7, 8, 9}}> {{ y = {node} }}"
            );
            parse_model(&text).unwrap()
        };
        let feed = Feed::from([("x".to_string(), Tensor::from_f32(&[3], &[1.0, 2.0, 3.0]))]);
        for node in [
            "BatchNormalization (x, s, s, s, s)",
            "Conv (x, w)",
            "MaxPool <kernel_shape = [1]> (x)",
            "AveragePool <kernel_shape = [1]> (x)",
            "GlobalAveragePool (x)",
            "GlobalMaxPool (x)",
            "InstanceNormalization (x, s, s)",
            "LRN <size = 1> (x)",
        ] {
            let run = Runner::new(&model(node), &RunnerOptions::default()).and_then(|r| r.run(&feed));
            let error = run.map(drop).unwrap_err().to_string();
            assert!(error.contains("no axis of channels") || error.contains("rank"), "{node}: {error}");
        }
    }
}
