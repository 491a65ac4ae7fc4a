//! External data on the way out: a copy of the model whose tensors point into the new data file.

use crate::error::{Context, Error, Result};
use crate::ir::{AttributeValue, External, Graph, Model, Node, NodeId, Tensor, TensorData, ValueId};
use bytes::Bytes;
use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

/// Page alignment, so that readers can map each tensor on its own (specification: TensorProto.external_data).
const ALIGNMENT: usize = 4096;

/// What goes into a data file, and where.
pub(super) struct Layout {
    location: String,
    pieces: Vec<(usize, Bytes)>,
    /// Tied weights are stored once.
    placed: HashMap<(usize, usize), usize>,
    end: usize,
}

/// Which initializers go into the data file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Where {
    /// Those that are external.
    AsLoaded,
    /// Those of at least this many bytes; strings and sparse ones cannot.
    From(usize),
    /// None.
    Inline,
}

/// A copy of the model with its initializers, in bodies too, inline or placed in a data file called `location`, and every
/// external tensor of an attribute inline. Element data are shared.
///
/// # Errors
/// External data that were not loaded.
pub(super) fn relocated(model: &Model, location: &str, rule: Where) -> Result<(Model, Layout)> {
    let mut copy = model.clone();
    let (pieces, placed) = (vec![], HashMap::new());
    let mut layout = Layout { location: location.to_string(), pieces, placed, end: 0 };
    relocate(&mut copy.graph, rule, &mut layout)?;
    Ok((copy, layout))
}

fn is_external(t: &Tensor) -> bool {
    matches!(t.data, TensorData::External(_))
}

fn relocate(graph: &mut Graph, rule: Where, layout: &mut Layout) -> Result<()> {
    let values: Vec<ValueId> = graph.values().collect();
    for v in values {
        let value = graph.value(v);
        let Some(t) = &value.init else { continue };
        let outside = goes_outside(t, rule);
        if !outside && !is_external(t) {
            continue;
        }
        let bytes = elements(t).context(|| format!("initializer \"{}\"", value.name))?;
        let data = match outside {
            true => TensorData::External(Arc::new(layout.place(bytes))),
            false => TensorData::Raw(bytes),
        };
        if let Some(t) = &mut graph.value_mut(v).init {
            t.data = data;
        }
    }
    let nodes: Vec<NodeId> = graph.nodes().filter(|&n| holds_tensors_or_bodies(graph.node(n))).collect();
    for n in nodes {
        let node = graph.node_mut(n);
        let label = node.label();
        for a in &mut node.attributes {
            let tensors = match &mut a.value {
                AttributeValue::Tensor(t) => std::slice::from_mut(t),
                AttributeValue::Tensors(ts) => ts,
                _ => &mut [],
            };
            for t in tensors.iter_mut().filter(|t| is_external(t)) {
                t.data = TensorData::Raw(elements(t).context(|| &label)?);
            }
        }
        for body in node.bodies_mut() {
            relocate(body, rule, layout)?;
        }
    }
    Ok(())
}

/// Asked before a node is changed, as that copies what the node shares with the original.
fn holds_tensors_or_bodies(node: &Node) -> bool {
    let tensors = node.attributes.iter().any(|a| match &a.value {
        AttributeValue::Tensor(t) => is_external(t),
        AttributeValue::Tensors(ts) => ts.iter().any(is_external),
        _ => false,
    });
    tensors || node.bodies().next().is_some()
}

fn goes_outside(t: &Tensor, rule: Where) -> bool {
    let dense = !matches!(t.data, TensorData::Sparse(_) | TensorData::Strings(_));
    match rule {
        Where::AsLoaded => is_external(t),
        Where::From(threshold) => dense && t.stored_bytes() >= threshold.max(1),
        Where::Inline => false,
    }
}

/// The elements as they are in a file, shared where they are stored so.
fn elements(t: &Tensor) -> Result<Bytes> {
    match &t.data {
        TensorData::Raw(b) => Ok(b.clone()),
        TensorData::External(e) => e.bytes.clone().ok_or_else(|| Error::invalid("external data are not loaded")),
        _ => Ok(t.bytes()?.into_owned().into()),
    }
}

impl Layout {
    fn place(&mut self, bytes: Bytes) -> External {
        let key = (bytes.as_ptr() as usize, bytes.len());
        let offset = *self.placed.entry(key).or_insert_with(|| {
            let offset = self.end.next_multiple_of(ALIGNMENT);
            self.end = offset + bytes.len();
            self.pieces.push((offset, bytes.clone()));
            offset
        });
        let entry = |key: &str, value: String| (key.to_string(), value);
        let entries = vec![
            entry("location", self.location.clone()),
            entry("offset", offset.to_string()),
            entry("length", bytes.len().to_string()),
        ];
        External { entries, bytes: Some(bytes) }
    }

    /// Whether there is anything for a data file.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Writes the data file.
    pub fn write(&self, w: &mut dyn Write) -> Result<()> {
        let mut at = 0;
        for (offset, bytes) in &self.pieces {
            w.write_all(&[0u8; ALIGNMENT][..offset - at])?;
            w.write_all(bytes)?;
            at = offset + bytes.len();
        }
        Ok(())
    }
}
