//! What is done to the interface before simplification: sizes for symbolic dimensions, and cutting out a part.

use super::schema::SimplifyStep;
use crate::analysis::shapes;
use crate::error::{Error, Result};
use crate::ir::{Dim, Graph, Model, TensorType, Type, Value, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Applies the interface part of the step.
///
/// # Errors
/// Names that the model does not have; a cut that leaves an input that nothing feeds.
pub fn apply(model: &mut Model, step: &SimplifyStep) -> Result<()> {
    if !step.extract_inputs.is_empty() || !step.extract_outputs.is_empty() {
        extract(model, &step.extract_inputs, &step.extract_outputs)?;
    }
    if !step.set_dims.is_empty() {
        set_dims(model, &step.set_dims)?;
    }
    Ok(())
}

/// Gives symbolic dimensions sizes, wherever a type names them.
fn set_dims(model: &mut Model, sizes: &BTreeMap<String, i64>) -> Result<()> {
    let mut named = BTreeSet::new();
    let graph = &model.graph;
    for ty in graph.inputs().iter().filter_map(|&v| graph.ty(v)?.shape()) {
        named.extend(ty.iter().filter_map(|d| if let Dim::Sym(s) = d { Some(s.to_string()) } else { None }));
    }
    if let Some(name) = sizes.keys().find(|n| !named.contains(*n)) {
        let have = if named.is_empty() { "none".into() } else { named.into_iter().collect::<Vec<_>>().join(", ") };
        return Err(Error::usage(format!("no graph input has a dimension \"{name}\" (there are: {have})")));
    }
    if let Some((name, size)) = sizes.iter().find(|(_, n)| **n < 0) {
        return Err(Error::usage(format!("dimension \"{name}\" cannot have the size {size}")));
    }
    set_dims_in(&mut model.graph, sizes);
    Ok(())
}

fn set_dims_in(graph: &mut Graph, sizes: &BTreeMap<String, i64>) {
    for v in graph.values().collect::<Vec<_>>() {
        let value = graph.value_mut(v);
        let Some(Type::Tensor(t)) = &mut value.ty else { continue };
        let mut changed = false;
        for d in t.shape.iter_mut().flatten() {
            if let Dim::Sym(s) = d
                && let Some(n) = sizes.get(&**s)
            {
                *d = Dim::Known(*n);
                changed = true;
            }
        }
        if changed {
            redeclare(value);
        }
    }
    for id in graph.nodes().collect::<Vec<_>>() {
        graph.node_mut(id).bodies_mut().for_each(|body| set_dims_in(body, sizes));
    }
}

/// Makes the file's own declarations of the value those of its type.
fn redeclare(value: &mut Value) {
    let ty = value.ty.as_ref().map(Type::to_proto);
    let Some(shell) = &mut value.shell else { return };
    let listed = shell.listed.as_mut().map(|(_, info)| info);
    for info in shell.input.iter_mut().chain(&mut shell.output).chain(listed) {
        info.r#type = ty.clone();
    }
}

/// Makes the named values the graph's inputs and outputs; an empty list leaves that side as it is, less the inputs that
/// nothing needs any more.
fn extract(model: &mut Model, inputs: &[String], outputs: &[String]) -> Result<()> {
    shapes::infer_types(model)?;
    let graph = &mut model.graph;
    let find = |graph: &Graph, name: &String| {
        graph.find(name).ok_or_else(|| Error::usage(format!("the main graph has no value \"{name}\"")))
    };
    if !outputs.is_empty() {
        let outputs: Result<Vec<ValueId>> = outputs.iter().map(|n| find(graph, n)).collect();
        let outputs = unique(outputs?)?;
        for &v in &outputs {
            typed(graph, v)?;
        }
        graph.set_outputs(outputs);
    }
    if !inputs.is_empty() {
        let inputs: Result<Vec<ValueId>> = inputs.iter().map(|n| find(graph, n)).collect();
        let inputs = unique(inputs?)?;
        for &v in &inputs {
            typed(graph, v)?;
            if graph.value(v).init.is_some() {
                let name = graph.name(v);
                return Err(Error::usage(format!("\"{name}\" is an initializer, which cannot become an input")));
            }
            graph.detach(v);
        }
        let old: Vec<ValueId> = graph.inputs().to_vec();
        graph.set_inputs(inputs.clone());
        graph.eliminate_dead()?;
        let kept = |v: &ValueId| inputs.contains(v);
        if let Some(missing) = old.into_iter().filter(|v| !kept(v)).find(|&v| graph.is_dangling(v)) {
            let name = graph.name(missing);
            return Err(Error::usage(format!(
                "the part still needs the graph input \"{name}\": name it too, or cut further down"
            )));
        }
        return Ok(());
    }
    graph.eliminate_dead()?;
    let used = graph.inputs().iter().copied().filter(|&v| graph.has_uses(v) || graph.is_output(v)).collect();
    graph.set_inputs(used);
    graph.eliminate_dead()?;
    Ok(())
}

fn unique(values: Vec<ValueId>) -> Result<Vec<ValueId>> {
    let set: BTreeSet<ValueId> = values.iter().copied().collect();
    if set.len() == values.len() { Ok(values) } else { Err(Error::usage("a value is named twice")) }
}

/// Graph inputs and outputs need a declared type.
fn typed(graph: &Graph, v: ValueId) -> Result<()> {
    match graph.ty(v) {
        Some(Type::Other(_)) | Some(Type::Tensor(TensorType { .. })) => Ok(()),
        None => {
            let name = graph.name(v);
            Err(Error::usage(format!("the type of \"{name}\" is not known, so it cannot become an input or output")))
        }
    }
}
