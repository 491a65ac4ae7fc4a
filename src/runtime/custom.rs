//! One tract operator for everything that tract lacks or gets wrong: a [`Kernel`] says what it computes.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// Type of one input or output of a kernel.
#[derive(Clone, Debug)]
pub(super) struct Fact {
    pub(super) dtype: DatumType,
    pub(super) shape: TVec<TDim>,
    /// The input itself, where it is constant: shapes and axes often are.
    pub(super) value: Option<Arc<Tensor>>,
}

impl Fact {
    /// The type alone. Shapes that tract computes with (`TDim`) are int64 for a kernel.
    pub(super) fn new(dtype: DatumType, shape: TVec<TDim>) -> Self {
        let dtype = if dtype == DatumType::TDim { DatumType::I64 } else { dtype };
        Self { dtype, shape, value: None }
    }
}

/// What an operator of ours computes. Inputs come by slot of the node, absent optional ones as `None`.
pub(super) trait Kernel: Debug + Send + Sync + 'static {
    /// For tract's messages.
    fn name(&self) -> &'static str;

    /// Types of the outputs, of absent optional ones too; fewer where the operator has fewer.
    fn facts(&self, inputs: &[Option<Fact>]) -> TractResult<TVec<Fact>>;

    /// Whether the operator may be computed ahead of a run where its inputs are constant.
    fn foldable(&self) -> bool {
        true
    }

    /// The outputs, as many as there are [`Kernel::facts`]. No input is of type `TDim`.
    fn eval(&self, inputs: &[Option<&Tensor>]) -> TractResult<TVec<Tensor>>;
}

/// A kernel as tract sees it.
#[derive(Clone, Debug)]
pub(super) struct Custom {
    kernel: Arc<dyn Kernel>,
    /// Which slots of the node are filled: tract passes on only those.
    present: TVec<bool>,
    /// Which outputs of the node are wanted: tract knows only those.
    wanted: TVec<bool>,
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
    let wanted = node.output.iter().map(|name| !name.is_empty()).collect();
    let op = Custom { kernel: Arc::new(kernel), present, wanted };
    (Box::new(op), vec![])
}

impl Custom {
    /// Spreads the filled inputs over the node's slots.
    fn by_slot<T>(&self, filled: impl IntoIterator<Item = T>) -> TVec<Option<T>> {
        let mut filled = filled.into_iter();
        self.present.iter().map(|&p| if p { filled.next() } else { None }).collect()
    }

    /// Those of the kernel's outputs that the node has.
    fn select<T>(&self, all: TVec<T>) -> TractResult<TVec<T>> {
        let count = all.len();
        let kept: TVec<T> = all.into_iter().zip(&self.wanted).filter(|(_, w)| **w).map(|(t, _)| t).collect();
        ensure!(
            kept.len() == self.nboutputs()?,
            "{} has {count} outputs, not {}",
            self.kernel.name(),
            self.wanted.len()
        );
        Ok(kept)
    }

    fn compute(&self, inputs: &[Cow<'_, Tensor>]) -> TractResult<TVec<TValue>> {
        let slots = self.by_slot(inputs.iter().map(|t| &**t));
        Ok(self.select(self.kernel.eval(&slots)?)?.into_iter().map(|t| t.into_tvalue()).collect())
    }
}

/// The tensor with int64 for `TDim`.
fn plain(t: &Tensor) -> TractResult<Cow<'_, Tensor>> {
    if t.datum_type() == DatumType::TDim { t.cast_to_dt(DatumType::I64) } else { Ok(Cow::Borrowed(t)) }
}

/// A constant that a kernel may read while the model is planned: not one of shapes that are not known yet.
fn known(value: Option<&Arc<Tensor>>) -> Option<Arc<Tensor>> {
    let value = value?;
    match plain(value).ok()? {
        Cow::Borrowed(_) => Some(value.clone()),
        Cow::Owned(t) => Some(Arc::new(t)),
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
        if !self.kernel.foldable() {
            return Ok(None);
        }
        let plain: TractResult<TVec<_>> = inputs.iter().map(|t| plain(t)).collect();
        // Not where they are shapes that are not known yet.
        plain.ok().map(|inputs| self.compute(&inputs)).transpose()
    }

    fn eval(&self, _ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let inputs: TVec<_> = inputs.iter().map(|t| plain(t)).collect::<TractResult<_>>()?;
        self.compute(&inputs)
    }
}

impl TypedOp for Custom {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let fact =
            |f: &&TypedFact| Fact { value: known(f.konst.as_ref()), ..Fact::new(f.datum_type, f.shape.to_tvec()) };
        let slots = self.by_slot(inputs.iter().map(fact));
        let outputs = self.select(self.kernel.facts(&slots)?)?;
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
        let fact = |f: &&InferenceFact| {
            let value = known(f.value.concretize().as_ref());
            Some(Fact { value, ..Fact::new(f.datum_type.concretize()?, f.shape.concretize()?) })
        };
        let facts: Option<TVec<Fact>> = inputs.iter().map(fact).collect();
        if let Some(facts) = facts {
            let slots = self.by_slot(facts);
            for (o, f) in out.iter_mut().zip(self.select(self.kernel.facts(&slots)?)?) {
                o.unify_with(&InferenceFact::dt_shape(f.dtype, &*f.shape))?;
            }
        }
        Ok((inputs.into_iter().cloned().collect(), out, observed.into_iter().cloned().collect()))
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.wanted.iter().filter(|w| **w).count())
    }

    as_op!();
    to_typed!();
}
