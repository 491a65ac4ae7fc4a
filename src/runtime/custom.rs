//! One tract operator for everything that tract lacks or gets wrong: a [`Kernel`] says what it computes.

use std::fmt::Debug;
use std::sync::Arc;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// Type of one input or output of a kernel.
#[derive(Clone, Debug)]
pub(super) struct Fact {
    pub(super) dtype: DatumType,
    pub(super) shape: TVec<TDim>,
}

/// What an operator of ours computes. Inputs come by slot of the node, absent optional ones as `None`.
pub(super) trait Kernel: Debug + Send + Sync + 'static {
    /// For tract's messages.
    fn name(&self) -> &'static str;

    /// Types of the outputs.
    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>>;

    /// Whether the operator may be computed ahead of a run where its inputs are constant.
    fn foldable(&self) -> bool {
        true
    }

    /// The outputs.
    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>>;
}

/// A kernel as tract sees it.
#[derive(Clone, Debug)]
pub(super) struct Custom {
    kernel: Arc<dyn Kernel>,
    /// Which slots of the node are filled: tract passes on only those.
    present: TVec<bool>,
    outputs: usize,
}

impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kernel, &other.kernel)
    }
}

impl Eq for Custom {}

/// The operator for `node`, in the form that tract's register of operators wants.
pub(super) fn custom(node: &NodeProto, kernel: impl Kernel) -> (Box<dyn InferenceOp>, Vec<String>) {
    let present = node.input.iter().map(|name| !name.is_empty()).collect();
    let outputs = node.output.iter().filter(|name| !name.is_empty()).count();
    let op = Custom { kernel: Arc::new(kernel), present, outputs };
    (Box::new(op), vec![])
}

impl Custom {
    /// Spreads the filled inputs over the node's slots.
    fn by_slot<T>(&self, filled: impl IntoIterator<Item = T>) -> TVec<Option<T>> {
        let mut filled = filled.into_iter();
        self.present.iter().map(|&p| if p { filled.next() } else { None }).collect()
    }
}

impl Op for Custom {
    fn name(&self) -> StaticName {
        self.kernel.name().into()
    }

    op_as_typed_op!();
}

impl EvalOp for Custom {
    fn eval_out_of_plan(&self, inputs: TVec<TValue>) -> TractResult<Option<TVec<TValue>>> {
        let foldable = self.kernel.foldable();
        foldable.then(|| EvalOp::eval(self, &EvalContext::out_of_plan(), inputs)).transpose()
    }

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let slots = self.by_slot(inputs.iter().map(|v| &**v));
        Ok(self.kernel.eval(&slots)?.into_iter().map(|t| t.into_tvalue()).collect())
    }
}

impl TypedOp for Custom {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let fact = |f: &&TypedFact| Fact { dtype: f.datum_type, shape: f.shape.to_tvec() };
        let slots = self.by_slot(inputs.iter().map(fact));
        let outputs = self.kernel.facts(&slots)?;
        Ok(outputs.into_iter().map(|f| f.dtype.fact(&*f.shape)).collect())
    }

    as_op!();
}

impl InferenceOp for Custom {
    fn infer_facts(
        &mut self,
        inputs: TVec<&InferenceFact>,
        outputs: TVec<&InferenceFact>,
        observed: TVec<&InferenceFact>,
    ) -> TractResult<(TVec<InferenceFact>, TVec<InferenceFact>, TVec<InferenceFact>)> {
        let mut out: TVec<InferenceFact> = outputs.into_iter().cloned().collect();
        let known = |f: &&InferenceFact| Some(Fact { dtype: f.datum_type.concretize()?, shape: f.shape.concretize()? });
        let facts: Option<TVec<Fact>> = inputs.iter().map(known).collect();
        if let Some(facts) = facts {
            let slots = self.by_slot(facts);
            for (o, f) in out.iter_mut().zip(self.kernel.facts(&slots)?) {
                o.unify_with(&InferenceFact::dt_shape(f.dtype, &*f.shape))?;
            }
        }
        Ok((inputs.into_iter().cloned().collect(), out, observed.into_iter().cloned().collect()))
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.outputs)
    }

    as_op!();
    to_typed!();
}
