//! References to a function's attributes become the attributes of a call.

use crate::error::{Error, Result};
use crate::ir::{Attribute, AttributeValue, Graph};

/// Binds every reference in `graph`, and in its bodies, to what the call gives or else to the default. An attribute that
/// refers to one that has neither is left out, as if the function's author had not written it.
///
/// # Errors
/// References to graphs, which could capture values of the caller.
pub(super) fn bind(graph: &mut Graph, given: &[Attribute], defaults: &[Attribute]) -> Result<()> {
    for id in graph.nodes().collect::<Vec<_>>() {
        let node = graph.node_mut(id);
        let label = node.label();
        let mut bound = Vec::with_capacity(node.attributes.len());
        for attribute in std::mem::take(&mut node.attributes) {
            let Some(reference) = reference(&attribute) else {
                bound.push(attribute);
                continue;
            };
            let find = |list: &[Attribute]| list.iter().find(|a| &*a.name == reference).cloned();
            let Some(found) = find(given).or_else(|| find(defaults)) else { continue };
            if matches!(found.value, AttributeValue::Graph(_) | AttributeValue::Graphs(_)) {
                return Err(Error::unsupported(format!("{label}: a graph as the function's attribute {reference}")));
            }
            bound.push(renamed(found, &attribute));
        }
        node.attributes = bound;
        for body in node.bodies_mut() {
            bind(body, given, defaults)?;
        }
    }
    Ok(())
}

/// Which attribute of the function this one refers to.
fn reference(attribute: &Attribute) -> Option<&str> {
    match &attribute.value {
        AttributeValue::Verbatim(p) => p.ref_attr_name.as_deref().filter(|name| !name.is_empty()),
        _ => None,
    }
}

fn renamed(mut found: Attribute, like: &Attribute) -> Attribute {
    found.name = like.name.clone();
    if let AttributeValue::Verbatim(p) = &mut found.value {
        p.name = Some(like.name.to_string());
    }
    found
}
