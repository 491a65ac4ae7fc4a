//! A function's graph takes the place of a call.

use crate::error::{Error, Result};
use crate::ir::{Graph, Node, NodeId, OpId, Port, Value, ValueId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Copies `inside`, whose inputs and outputs are those of the function, into `graph` in place of `call`, which is left
/// without uses. What `call` made keeps its names; the function's own values get names that start with `prefix`.
///
/// # Errors
/// A call that does not fit the function.
pub(super) fn splice(graph: &mut Graph, call: NodeId, mut inside: Graph, prefix: &str) -> Result<()> {
    let (given, wanted) = (graph.node_inputs(call), graph.node_outputs(call));
    if given.len() > inside.inputs().len() || wanted.len() > inside.outputs().len() {
        return Err(Error::invalid(format!(
            "it has {} inputs and {} outputs, the function {} and {}",
            given.len(),
            wanted.len(),
            inside.inputs().len(),
            inside.outputs().len()
        )));
    }
    if let Some(v) = inside.outer_values().first() {
        return Err(Error::invalid(format!("nothing in the function defines \"{}\"", inside.name(*v))));
    }
    separate_outputs(&mut inside)?;
    rename_apart(graph, &mut inside, prefix)?;
    connect_inputs(graph, &mut inside, &given)?;
    let made = copy(graph, &inside, graph.node(call).rank)?;
    for (old, new) in wanted.into_iter().zip(inside.outputs()) {
        if let (Some(old), Some(&new)) = (old, made.get(new)) {
            take_over(graph, old, new)?;
        }
    }
    Ok(())
}

/// Gives every output a value of its own that a node makes.
fn separate_outputs(inside: &mut Graph) -> Result<()> {
    let mut outputs = inside.outputs().to_vec();
    let mut seen: HashSet<ValueId> = HashSet::new();
    for v in &mut outputs {
        if seen.insert(*v) && inside.producer(*v).is_some() {
            continue;
        }
        let name = inside.fresh_name(&format!("{}_copy", inside.name(*v)));
        let copy = inside.add_value(Value::named(name))?;
        let mut identity = Node::new(OpId::onnx("Identity"));
        identity.rank = u32::MAX;
        inside.add_node(identity, &[Some(*v)], &[Some(copy)])?;
        *v = copy;
    }
    inside.set_outputs(outputs);
    Ok(())
}

/// Gives all values of the function names that are free in `graph`.
fn rename_apart(graph: &mut Graph, inside: &mut Graph, prefix: &str) -> Result<()> {
    inside.lend_names(graph.take_names());
    let mut names = inside.take_names();
    let mut fresh = |name: &str| names.fresh(&format!("{prefix}/{name}"));
    rename_bodies(inside, &mut fresh)?;
    for v in inside.values().collect::<Vec<_>>() {
        let name = fresh(inside.name(v));
        inside.rename(v, &name)?;
    }
    graph.lend_names(names);
    Ok(())
}

fn rename_bodies(graph: &mut Graph, fresh: &mut dyn FnMut(&str) -> Arc<str>) -> Result<()> {
    for id in graph.nodes().collect::<Vec<_>>() {
        for body in graph.node_mut(id).bodies_mut() {
            for v in body.values().collect::<Vec<_>>() {
                if !body.is_outer(v) {
                    let name = fresh(body.name(v));
                    body.rename(v, &name)?;
                }
            }
            rename_bodies(body, fresh)?;
        }
    }
    Ok(())
}

/// Makes the function's inputs values of the caller, by name.
fn connect_inputs(graph: &Graph, inside: &mut Graph, given: &[Option<ValueId>]) -> Result<()> {
    let mut known: HashMap<ValueId, ValueId> = HashMap::new();
    for (k, v) in inside.inputs().to_vec().into_iter().enumerate() {
        match given.get(k).copied().flatten() {
            None => leave_out(inside, v)?,
            Some(outer) => match known.get(&outer) {
                Some(&first) => inside.replace_uses(v, first)?,
                None => {
                    inside.rename(v, graph.name(outer))?;
                    known.insert(outer, v);
                }
            },
        }
    }
    Ok(())
}

/// Makes every use of an input that the call leaves out an absent input.
fn leave_out(inside: &mut Graph, v: ValueId) -> Result<()> {
    for at in inside.uses(v) {
        let Port::In(slot) = at.port else {
            let name = inside.name(v);
            return Err(Error::unsupported(format!("a call without \"{name}\", which a body of the function uses")));
        };
        inside.set_input(at.node, slot as usize, None);
    }
    Ok(())
}

/// Copies the nodes; values meet by name. Returns what the function's values are in `graph`.
fn copy(graph: &mut Graph, inside: &Graph, rank: u32) -> Result<HashMap<ValueId, ValueId>> {
    let mut made = HashMap::new();
    let formal: HashSet<ValueId> = inside.inputs().iter().copied().collect();
    for id in inside.order()? {
        let mut here = |graph: &mut Graph, v: Option<ValueId>| -> Result<Option<ValueId>> {
            let Some(v) = v else { return Ok(None) };
            let name = inside.value(v).name.clone();
            let found = graph.value_or_new(&name)?;
            if !formal.contains(&v) && made.insert(v, found).is_none() {
                let Value { ty, init, .. } = inside.value(v).clone();
                let value = graph.value_mut(found);
                (value.ty, value.init) = (ty, init);
            }
            Ok(Some(found))
        };
        let ends = [inside.node_inputs(id), inside.node_outputs(id)];
        let [inputs, outputs] = ends.map(|end| end.into_iter().map(|v| here(graph, v)).collect::<Result<Vec<_>>>());
        let (inputs, outputs) = (inputs?, outputs?);
        let mut node = inside.node(id).clone();
        node.rank = rank;
        graph.add_node(node, &inputs, &outputs)?;
    }
    Ok(made)
}

/// Makes `new` what `old` was, name and declared type included.
fn take_over(graph: &mut Graph, old: ValueId, new: ValueId) -> Result<()> {
    let ty = graph.ty(old).cloned();
    let was_output = graph.is_output(old);
    graph.replace_uses(old, new)?;
    if !was_output {
        let name = graph.value(old).name.clone();
        let spare = graph.fresh_name(&format!("{name}_replaced"));
        graph.rename(old, &spare)?;
        graph.rename(new, &name)?;
    }
    if ty.is_some() {
        graph.value_mut(new).ty = ty;
    }
    Ok(())
}
