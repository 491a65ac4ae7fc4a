//! Channel groups of a model, for the user.

use super::prune::prepare;
use crate::analysis::axis_groups::{AxisGroups, Group, axis_groups};
use crate::error::{Context, Result};
use crate::io;
use crate::ir::{Graph, Model};
use crate::passes::PassContext;
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// Groups of a model.
#[derive(Clone, Debug, Serialize)]
pub struct GroupsReport {
    /// The model.
    pub model: String,
    /// The groups in execution order.
    pub groups: Vec<GroupRow>,
    /// Nodes with weights in their bodies, which are not pruned.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bodies: Vec<BodyRow>,
}

/// A node with bodies.
#[derive(Clone, Debug, Serialize)]
pub struct BodyRow {
    /// Its name and operator.
    pub node: String,
    /// Constants of rank 2 or more in them, bodies in bodies included.
    pub weights: usize,
    /// Their numbers.
    pub elements: usize,
}

/// One group.
#[derive(Clone, Debug, Serialize)]
pub struct GroupRow {
    /// After the node whose weight makes the channels.
    pub name: String,
    /// Channels that can be removed one by one.
    pub channels: usize,
    /// Elements of the narrowest activation axis that one channel takes.
    pub width: usize,
    /// Whether channels may be removed.
    pub prunable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether `--allow-inexact` would allow it.
    pub inexact: bool,
    /// What is coupled: value, axis, elements of it in this group, and whether it is a weight.
    pub members: Vec<Member>,
}

/// One axis of a group.
#[derive(Clone, Debug, Serialize)]
pub struct Member {
    /// Name.
    pub value: String,
    /// Axis from the front.
    pub axis: usize,
    /// Elements in this group.
    pub elements: usize,
    /// Whether it is a constant.
    pub constant: bool,
}

/// Finds the groups of a model file.
///
/// # Errors
/// Those of loading, and an invalid model.
pub fn groups_file(path: &Path, allow_inexact: bool) -> Result<GroupsReport> {
    let mut model = io::load(path)?;
    let place = || path.display().to_string();
    let groups = groups(&mut model, allow_inexact).context(place)?;
    let rows = groups.groups.iter().map(|g| row(&model.graph, g)).collect();
    Ok(GroupsReport { model: path.display().to_string(), groups: rows, bodies: bodies(&model.graph) })
}

/// Nodes with weights in their bodies.
fn bodies(graph: &Graph) -> Vec<BodyRow> {
    let row = |id| {
        let sizes: Vec<usize> = graph.node(id).bodies().flat_map(weights).collect();
        let (node, elements) = (graph.node(id).label(), sizes.iter().sum());
        (!sizes.is_empty()).then_some(BodyRow { node, weights: sizes.len(), elements })
    };
    graph.nodes().filter_map(row).collect()
}

/// Numbers of elements of the weights in a body.
fn weights(body: &Graph) -> Vec<usize> {
    let own = body.values().filter_map(|v| body.constant(v)).filter(|t| t.rank() > 1);
    let own = own.map(|t| t.dims.iter().product());
    own.chain(body.nodes().flat_map(|id| body.node(id).bodies().flat_map(weights))).collect()
}

fn groups(model: &mut Model, allow_inexact: bool) -> Result<AxisGroups> {
    prepare(model, &PassContext::default(), None)?;
    axis_groups(model, allow_inexact)
}

/// The group for a report.
pub(super) fn row(graph: &Graph, group: &Group) -> GroupRow {
    let member = |(k, place): (usize, &crate::analysis::axis_groups::Place)| Member {
        value: graph.name(place.value).to_string(),
        axis: place.axis,
        elements: group.classes.iter().map(|c| c.members[k].len()).sum(),
        constant: graph.constant(place.value).is_some(),
    };
    GroupRow {
        name: group.name.clone(),
        channels: group.classes.len(),
        width: group.multiplicity(graph),
        prunable: group.barrier.is_none() && group.classes.len() > 1,
        reason: match &group.barrier {
            Some(b) => Some(b.reason.clone()),
            None => (group.classes.len() < 2).then(|| "all of its channels are coupled to each other".into()),
        },
        inexact: group.barrier.as_ref().is_some_and(|b| b.inexact),
        members: group.axes.iter().enumerate().map(member).collect(),
    }
}

impl GroupsReport {
    /// The report for people.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let (yes, no): (Vec<&GroupRow>, Vec<&GroupRow>) = self.groups.iter().partition(|g| g.prunable);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}: {} groups of channels can be pruned, {} cannot", self.model, yes.len(), no.len());
        for g in &yes {
            let twice = if g.width > 1 { format!(", each {} wide", g.width) } else { String::new() };
            let _ = writeln!(out, "{}: {} channels{twice}", g.name, g.channels);
            let weights = g.members.iter().filter(|m| m.constant);
            let names: Vec<String> = weights.map(|m| format!("{}[{}]", m.value, m.axis)).collect();
            let _ = writeln!(out, "  {} and {} activations", names.join(", "), g.members.len() - names.len());
        }
        for g in &no {
            let hint = if g.inexact { " (--allow-inexact)" } else { "" };
            let reason = g.reason.as_deref().unwrap_or_default();
            let _ = writeln!(out, "not {}: {} channels: {reason}{hint}", g.name, g.channels);
        }
        for b in &self.bodies {
            let (node, weights, elements) = (&b.node, b.weights, b.elements);
            let _ = writeln!(out, "not {node}: {weights} weights ({elements} numbers) in bodies, which are not pruned");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_in_bodies_are_reported() {
        let text = r#"<ir_version: 8, opset_import: ["" : 17]>
            g (bool k, float[n, 2] x) => (float[n, 3] y)
            { y = If <then_branch = a () => (float[n, 3] p) <float[2, 3] w = {1, 2, 3, 4, 5, 6}> { p = MatMul (x, w) },
                      else_branch = b () => (float[n, 3] q) <float[1] s = {1}, float[2, 3] w2 = {1, 2, 3, 4, 5, 6}>
                      { m = MatMul (x, w2)  q = Mul (m, s) }> (k) }"#;
        let model = crate::io::text::parse_model(text).unwrap();
        let found = bodies(&model.graph);
        assert_eq!((found.len(), found[0].weights, found[0].elements), (1, 2, 12));
        let report = GroupsReport { model: "m".into(), groups: vec![], bodies: found };
        assert!(report.render().contains("2 weights (12 numbers) in bodies"));
    }
}
