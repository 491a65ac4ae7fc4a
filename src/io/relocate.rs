//! External data on the way out: a copy of the model whose tensors point into the new data file.

use crate::error::{Context, Error, Result};
use crate::ir::{AttributeValue, External, Graph, Model, NodeId, Tensor, TensorData, ValueId};
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

/// A copy of the model with every external initializer, in bodies too, placed in a data file called `location`, and every
/// other external tensor inline; `None` where no initializer is external, so that there is nothing to place.
///
/// # Errors
/// External data that were not loaded.
pub(super) fn relocated(model: &Model, location: &str) -> Result<Option<(Model, Layout)>> {
    if !has_external(&model.graph) {
        return Ok(None);
    }
    let mut copy = model.clone(); // element data are shared
    let (pieces, placed) = (vec![], HashMap::new());
    let mut layout = Layout { location: location.to_string(), pieces, placed, end: 0 };
    relocate(&mut copy.graph, &mut layout)?;
    Ok(Some((copy, layout)))
}

fn is_external(t: &Tensor) -> bool {
    matches!(t.data, TensorData::External(_))
}

fn has_external(graph: &Graph) -> bool {
    let in_node = |n: NodeId| {
        let attributes = graph.node(n).attributes.iter();
        attributes.map(|a| &a.value).any(|a| match a {
            AttributeValue::Tensor(t) => is_external(t),
            AttributeValue::Tensors(ts) => ts.iter().any(is_external),
            AttributeValue::Graph(g) => has_external(g),
            AttributeValue::Graphs(gs) => gs.iter().any(has_external),
            _ => false,
        })
    };
    graph.values().any(|v| graph.value(v).init.as_ref().is_some_and(is_external)) || graph.nodes().any(in_node)
}

fn relocate(graph: &mut Graph, layout: &mut Layout) -> Result<()> {
    let values: Vec<ValueId> = graph.values().collect();
    for v in values {
        let name = graph.value(v).name.clone();
        if let Some(t) = graph.value_mut(v).init.as_mut().filter(|t| is_external(t)) {
            let bytes = loaded(t).context(|| format!("initializer \"{name}\""))?;
            t.data = TensorData::External(Arc::new(layout.place(bytes)));
        }
    }
    let nodes: Vec<NodeId> = graph.nodes().collect();
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
                t.data = TensorData::Raw(loaded(t).context(|| &label)?);
            }
        }
        for body in node.bodies_mut() {
            relocate(body, layout)?;
        }
    }
    Ok(())
}

fn loaded(t: &Tensor) -> Result<Bytes> {
    match &t.data {
        TensorData::External(e) => e.bytes.clone().ok_or_else(|| Error::invalid("external data are not loaded")),
        _ => Err(Error::internal("not an external tensor")),
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
