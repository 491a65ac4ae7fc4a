//! The model as the tape runs it: for known input shapes, with all shape arithmetic done.

use super::parameters::Parameter;
use crate::error::{Error, Result};
use crate::ir::{Model, Type, ValueId};
use crate::passes::simplify::{
    FoldConstantOfShape, FoldConstants, FoldShapes, InlineIf, LiftConstants, LiftInitializerInputs,
};
use crate::passes::{PassContext, RewritePass, inline_functions, manager};
use crate::runtime::RuntimeEvaluator;

/// Largest tensor, in bytes, that is computed ahead of time.
const FOLD_LIMIT: usize = 64 << 20;

/// Name and shape of each fed input.
pub(super) type Signature = Vec<(String, Vec<usize>)>;

/// A copy of the model in which parameters are inputs, the graph inputs have the shapes of `signature`, and what depends
/// on neither parameters nor data is a constant.
///
/// # Errors
/// Shapes that the model does not take; operators whose inputs break their rules.
pub(super) fn prepare(model: &Model, parameters: &[Parameter], signature: &Signature) -> Result<Model> {
    let mut model = model.clone();
    inline_functions(&mut model)?;
    let cx = PassContext::default();
    manager::run(&mut model, &[&LiftInitializerInputs], &cx, None)?;
    let graph = &mut model.graph;
    let mut inputs: Vec<ValueId> = graph.inputs().to_vec();
    for p in parameters {
        let missing = || Error::usage(format!("the model has no initializer \"{}\"", p.name));
        let v = graph.find(&p.name).ok_or_else(missing)?;
        let value = graph.value_mut(v);
        value.init = None;
        value.ty = Some(Type::tensor(p.dtype, &p.dims));
        inputs.push(v);
    }
    for (name, dims) in signature {
        let Some(v) = graph.find(name) else { continue };
        let elem = graph.ty(v).and_then(Type::elem);
        let elem = elem.ok_or_else(|| Error::unsupported(format!("graph input \"{name}\" is of unknown type")))?;
        graph.value_mut(v).ty = Some(Type::tensor(elem, dims));
    }
    graph.set_inputs(inputs);
    crate::analysis::shapes::infer_types(&mut model)?;
    let rules = RewritePass::new(
        "specialize",
        vec![
            Box::new(LiftConstants),
            Box::new(FoldShapes),
            Box::new(FoldConstantOfShape::new(FOLD_LIMIT)),
            Box::new(FoldConstants { limit: FOLD_LIMIT }),
            Box::new(InlineIf),
        ],
    );
    manager::run(&mut model, &[&rules.with_evaluator(&RuntimeEvaluator)], &cx, None)?;
    Ok(model)
}
