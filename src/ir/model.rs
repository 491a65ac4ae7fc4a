//! The model: a graph, the operator sets it is written in, and everything else the file said.

use super::Graph;
use crate::proto;

/// A whole `.onnx` file.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Operator sets, as read. The default domain may be spelled `""` or `ai.onnx`.
    pub opsets: Vec<proto::OperatorSetIdProto>,
    /// The main graph.
    pub graph: Graph,
    /// Model-local functions, kept as read; whoever executes a model inlines a copy of its own.
    pub functions: Vec<proto::FunctionProto>,
    /// Every other field of the `ModelProto` (metadata, training info, ...), as read; its graph, opsets and functions
    /// are empty.
    pub shell: proto::ModelProto,
}

/// The newest operator set that this version knows.
pub const NEWEST_OPSET: i64 = 26;

impl Model {
    /// Version of a domain's operator set; `""` and `ai.onnx` are the same domain.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        let wanted = canonical_domain(domain);
        let found = self.opsets.iter().find(|o| canonical_domain(o.domain()) == wanted);
        found.map(|o| o.version())
    }

    /// Version of the default domain; 1 where the file imports none (as the specification says for IR version 1 and 2).
    pub fn default_opset(&self) -> i64 {
        self.opset("").unwrap_or(1)
    }

    /// IR version of the file; 0 where it has none.
    pub fn ir_version(&self) -> i64 {
        self.shell.ir_version()
    }

    /// Imports a domain's operator set where it is not imported yet.
    pub(crate) fn import(&mut self, domain: &str, version: i64) {
        if self.opset(domain).is_none() {
            let domain = Some(domain.to_string());
            self.opsets.push(proto::OperatorSetIdProto { domain, version: Some(version) });
        }
    }

    /// [`Self::import`], where an operator of the domain is in the graph or in a body.
    pub(crate) fn import_if_used(&mut self, domain: &str, version: i64) {
        if uses_domain(&self.graph, domain) {
            self.import(domain, version);
        }
    }

    /// Sets the version of the default domain. Only `analysis::opset`, which upgrades the nodes, may call it.
    pub(crate) fn set_default_opset(&mut self, version: i64) {
        match self.opsets.iter_mut().find(|o| canonical_domain(o.domain()).is_empty()) {
            Some(o) => o.version = Some(version),
            None => self.import("", version),
        }
    }

    /// Raises the IR version to at least `version`.
    pub(crate) fn require_ir_version(&mut self, version: i64) {
        if self.ir_version() < version {
            self.shell.ir_version = Some(version);
        }
    }
}

/// `""` for both spellings of the default domain, else the domain itself.
pub fn canonical_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

fn uses_domain(graph: &Graph, domain: &str) -> bool {
    let uses = |n| &*graph.node(n).op.domain == domain || graph.node(n).bodies().any(|b| uses_domain(b, domain));
    graph.nodes().any(uses)
}
