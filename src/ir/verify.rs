//! The verifier: what must be true of every graph, checked after every pass.

use super::{Graph, Model, TensorData, ValueId};
use crate::error::{Error, Result};
use std::collections::HashSet;
use std::sync::Arc;

/// At most this many findings are spelled out.
const SPELLED_OUT: usize = 8;

impl Model {
    /// Checks every rule and reports all violations at once.
    ///
    /// # Errors
    /// [`Error::Invalid`] that lists what is wrong.
    pub fn verify(&self) -> Result<()> {
        let mut findings = vec![];
        self.graph.collect_findings("", &HashSet::new(), &mut findings);
        report(findings)
    }
}

impl Graph {
    /// [`Model::verify`] for one graph that captures nothing.
    ///
    /// # Errors
    /// As [`Model::verify`].
    pub fn verify(&self) -> Result<()> {
        let mut findings = vec![];
        self.collect_findings("", &HashSet::new(), &mut findings);
        report(findings)
    }

    fn collect_findings(&self, place: &str, outer: &HashSet<Arc<str>>, findings: &mut Vec<String>) {
        self.check_values(place, outer, findings);
        if let Err(e) = self.order() {
            findings.push(format!("{place}{e}"));
        }
        for id in self.nodes() {
            let node = self.node(id);
            if node.op.op_type.is_empty() {
                findings.push(format!("{place}{} has no op_type", node.label()));
            }
            if node.bodies().next().is_none() {
                continue;
            }
            let captured: HashSet<Arc<str>> =
                self.captures(id).into_iter().map(|v| self.value(v).name.clone()).collect();
            for body in node.bodies() {
                let place = format!("{place}in a body of {}: ", node.label());
                body.collect_findings(&place, &captured, findings);
            }
        }
    }

    fn check_values(&self, place: &str, outer: &HashSet<Arc<str>>, findings: &mut Vec<String>) {
        let inputs: HashSet<ValueId> = self.inputs.iter().copied().collect();
        if inputs.len() != self.inputs.len() {
            findings.push(format!("{place}a graph input is listed twice"));
        }
        for v in self.values() {
            let value = self.value(v);
            let name = &value.name;
            let produced = self.producer(v).is_some();
            if produced && (value.init.is_some() || inputs.contains(&v)) {
                findings.push(format!("{place}\"{name}\" is defined twice"));
            }
            if self.find(name) != Some(v) {
                findings.push(format!("{place}the name \"{name}\" is not indexed"));
            }
            let needed = self.has_uses(v) || self.is_output(v);
            let defined = produced || value.init.is_some() || inputs.contains(&v);
            if needed && !defined && !outer.contains(name) {
                let user = self.uses(v).first().map(|u| format!(", an input of {}", self.node(u.node).label()));
                let user = user.unwrap_or_else(|| ", a graph output".into());
                findings.push(format!("{place}nothing produces \"{name}\"{user}"));
            }
            self.check_init(place, v, findings);
        }
    }

    fn check_init(&self, place: &str, v: ValueId, findings: &mut Vec<String>) {
        let value = self.value(v);
        let Some(t) = &value.init else { return };
        let stored = match &t.data {
            TensorData::Raw(b) => Some(b.len()),
            TensorData::External(e) => e.bytes.as_ref().map(|b| b.len()),
            _ => None, // checked where the elements are read
        };
        let size = t.dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).and_then(|n| t.dtype.bytes_for(n));
        if let Some(stored) = stored
            && size != Some(stored)
        {
            let (name, dims, dtype) = (&value.name, &t.dims, t.dtype);
            findings.push(format!(
                "{place}initializer \"{name}\" of type {dtype} and shape {dims:?} has {stored} bytes of data"
            ));
        }
        if let Some(elem) = value.ty.as_ref().and_then(|t| t.elem())
            && elem != t.dtype
        {
            let (name, dtype) = (&value.name, t.dtype);
            findings.push(format!("{place}\"{name}\" is declared {elem}, its initializer holds {dtype}"));
        }
    }
}

fn report(findings: Vec<String>) -> Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    let more = findings.len().saturating_sub(SPELLED_OUT);
    let mut text = findings[..findings.len().min(SPELLED_OUT)].join("; ");
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    Err(Error::Invalid(text))
}
