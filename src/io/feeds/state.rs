//! State: outputs of one feed that are inputs of the next.

use super::slot::Slot;
use crate::error::{Error, Result};
use crate::ir::{Graph, ValueId};
use std::collections::BTreeMap;

/// By input name, the output that it takes from the feed before; the data give it for the first feed only.
pub type State = BTreeMap<String, String>;

/// An input and the position of its output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StateLink {
    /// Name of the input.
    pub input: String,
    /// Position of the output among the graph's.
    pub output: usize,
}

/// Looks the names up, and marks the slots that are carried over.
///
/// # Errors
/// A name that the graph does not have (with those that it has), and types that differ.
pub(super) fn link(graph: &Graph, state: &State, slots: &mut [Slot]) -> Result<Vec<StateLink>> {
    let mut links = vec![];
    for (input, output) in state {
        let names: Vec<String> = graph.outputs().iter().map(|&v| graph.name(v).to_string()).collect();
        let place = names.iter().position(|n| n == output).ok_or_else(|| unknown("output", output, &names))?;
        let Some(slot) = slots.iter_mut().find(|s| *s.name == **input) else {
            let names: Vec<String> = slots.iter().map(|s| s.name.to_string()).collect();
            return Err(unknown("input", input, &names));
        };
        let made = elem(graph, graph.outputs()[place]);
        if let (Some(a), Some(b)) = (made, slot.elem)
            && a != b
        {
            return Err(Error::usage(format!("state: output \"{output}\" is {a}, input \"{input}\" takes {b}")));
        }
        slot.carried = true;
        links.push(StateLink { input: input.clone(), output: place });
    }
    Ok(links)
}

fn elem(graph: &Graph, v: ValueId) -> Option<crate::ir::DType> {
    graph.ty(v).and_then(|t| t.elem())
}

fn unknown(what: &str, name: &str, have: &[String]) -> Error {
    Error::usage(format!("state: the model has no {what} \"{name}\" (there are: {})", have.join(", ")))
}
