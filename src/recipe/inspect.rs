//! What a model is.

use crate::analysis::{cost, shapes};
use crate::error::{Context, Result};
use crate::io;
use crate::ir::{Graph, Model, Type, ValueId};
use crate::runtime;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Facts about a model file.
#[derive(Clone, Debug, Serialize)]
pub struct InspectReport {
    /// The file.
    pub file: String,
    /// Bytes, external data included.
    pub bytes: u64,
    /// IR version.
    pub ir_version: i64,
    /// Who wrote it.
    pub producer: String,
    /// Operator sets by domain.
    pub opsets: BTreeMap<String, i64>,
    /// Inputs that must be fed: name and type.
    pub inputs: Vec<(String, String)>,
    /// Inputs with a default, which a caller may override.
    pub optional_inputs: usize,
    /// Outputs: name and type.
    pub outputs: Vec<(String, String)>,
    /// Nodes by operator, bodies included.
    pub ops: BTreeMap<String, usize>,
    /// Nodes by operator that compute on, or convert to, 8-bit or smaller integers.
    pub quantized_ops: BTreeMap<String, usize>,
    /// Model-local functions.
    pub functions: usize,
    /// Elements of all constants.
    pub parameters: u64,
    /// Bytes of constants by element type.
    pub bytes_by_type: BTreeMap<String, u64>,
    /// Multiply-accumulates; a free dimension counts as 1.
    pub macs: u64,
    /// Nodes whose multiply-accumulates are unknown.
    pub uncounted: usize,
    /// What tract cannot run, and why; `validate` needs this to be empty.
    pub tract_cannot_run: Vec<String>,
    /// What does not hold together, if type inference found a contradiction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub type_error: Option<String>,
}

/// Looks at a model file.
///
/// # Errors
/// Those of [`io::load`].
pub fn inspect_file(path: &Path) -> Result<InspectReport> {
    let mut model = io::load(path)?;
    let bytes = io::model_bytes(path, &model)?;
    let type_error = match shapes::infer(&mut model).context(|| path.display().to_string()) {
        Ok(facts) => (!facts.corrected.is_empty()).then(|| facts.corrected.join("; ")),
        Err(e) => Some(e.to_string()),
    };
    let cost = cost::cost(&model);
    let graph = &model.graph;
    let describe = |v: ValueId| (graph.name(v).to_string(), graph.ty(v).map_or("?".into(), Type::to_string));
    let opset = |o: &crate::proto::OperatorSetIdProto| {
        let domain = if o.domain().is_empty() { "ai.onnx" } else { o.domain() };
        (domain.to_string(), o.version())
    };
    Ok(InspectReport {
        file: path.display().to_string(),
        bytes,
        ir_version: model.ir_version(),
        producer: producer(&model),
        opsets: model.opsets.iter().map(opset).collect(),
        inputs: graph.required_inputs().map(describe).collect(),
        optional_inputs: graph.inputs().len() - graph.required_inputs().count(),
        outputs: graph.outputs().iter().copied().map(describe).collect(),
        quantized_ops: quantized_ops(graph),
        ops: cost.ops,
        functions: model.functions.len(),
        parameters: cost.params,
        bytes_by_type: cost.bytes.into_iter().map(|(t, n)| (t.name().to_string(), n)).collect(),
        macs: cost.macs,
        uncounted: cost.uncounted.len(),
        tract_cannot_run: runtime::unsupported(&model),
        type_error,
    })
}

fn producer(model: &Model) -> String {
    let shell = &model.shell;
    format!("{} {}", shell.producer_name(), shell.producer_version()).trim().to_string()
}

/// Operators with an operand of 8 bits or fewer.
pub(super) fn quantized_ops(graph: &Graph) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let small = |v: ValueId| {
        let elem = graph.ty(v).and_then(Type::elem);
        elem.is_some_and(|t| t.is_int() && t.bits() <= 8)
    };
    for id in graph.nodes() {
        let values = graph.node_inputs(id).into_iter().chain(graph.node_outputs(id)).flatten();
        if values.into_iter().any(small) {
            *counts.entry(graph.node(id).op.to_string()).or_insert(0) += 1;
        }
    }
    counts
}

impl InspectReport {
    /// The report for people.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let opsets: Vec<String> = self.opsets.iter().map(|(d, v)| format!("{d} {v}")).collect();
        // Writing to a String cannot fail.
        let _ =
            writeln!(out, "{}: {} bytes, IR version {}, {}", self.file, self.bytes, self.ir_version, opsets.join(", "));
        if !self.producer.is_empty() {
            let _ = writeln!(out, "written by {}", self.producer);
        }
        for (what, values) in [("input", &self.inputs), ("output", &self.outputs)] {
            for (name, ty) in values {
                let _ = writeln!(out, "{what:<7} {name}  {ty}");
            }
        }
        if self.optional_inputs > 0 {
            let _ = writeln!(out, "{} initializers are inputs too", self.optional_inputs);
        }
        let _ = writeln!(out, "parameters {}, MACs {} (a free dimension counts as 1)", self.parameters, self.macs);
        if self.uncounted > 0 {
            let _ = writeln!(out, "the MACs of {} nodes are unknown", self.uncounted);
        }
        let types: Vec<String> = self.bytes_by_type.iter().map(|(t, n)| format!("{t} {n}")).collect();
        let _ =
            writeln!(out, "bytes of constants: {}", if types.is_empty() { "none".into() } else { types.join(", ") });
        let _ = writeln!(out, "{} nodes: {}", self.ops.values().sum::<usize>(), counts(&self.ops));
        if !self.quantized_ops.is_empty() {
            let _ = writeln!(out, "on 8 bits or fewer: {}", counts(&self.quantized_ops));
        }
        if self.functions > 0 {
            let _ = writeln!(out, "{} model-local functions", self.functions);
        }
        for line in &self.tract_cannot_run {
            let _ = writeln!(out, "tract cannot run it: {line}");
        }
        if let Some(e) = &self.type_error {
            let _ = writeln!(out, "types contradict each other: {e}");
        }
        out
    }
}

fn counts(ops: &BTreeMap<String, usize>) -> String {
    ops.iter().map(|(op, n)| format!("{n} {op}")).collect::<Vec<_>>().join(", ")
}
