//! What is known of each operator, as a table.

use crate::ir::{AttributeValue, DType, Graph, Node, OpId, Type};
use crate::ops;
use crate::ops::spec::{InferContext, Known, OpSpec, QuantRole, Schema};
use crate::runtime;
use serde::Serialize;

/// One operator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OpRow {
    /// `""` for the standard's own domain.
    pub domain: &'static str,
    /// For example `Conv`.
    pub op_type: &'static str,
    /// Operator sets that define or redefine it.
    pub versions: &'static [i64],
    /// Whether types and shapes of its outputs are inferred.
    pub infers: bool,
    /// Whether it takes part in quantization, with its weights at least.
    pub quantizes: bool,
    /// Whether the runtime runs it, at least in its plainest form.
    pub runs: bool,
    /// Whether equal inputs always give equal outputs.
    pub deterministic: bool,
}

/// Every operator with a file under `src/ops`, by domain and name.
pub fn support_table() -> Vec<OpRow> {
    let mut rows: Vec<OpRow> = ops::table().map(|(schema, spec)| row(schema, spec)).collect();
    rows.sort_by_key(|r| (r.domain, r.op_type));
    rows
}

/// The table in Markdown, one line per operator.
pub fn render_markdown(rows: &[OpRow]) -> String {
    let mut out = String::from(
        "| Operator | Operator sets | Shapes | Quantization | Runtime | Deterministic |\n|---|---|---|---|---|---|\n",
    );
    for r in rows {
        let name = if r.domain.is_empty() { r.op_type.to_string() } else { format!("{}.{}", r.domain, r.op_type) };
        let versions: Vec<String> = r.versions.iter().map(i64::to_string).collect();
        let mark = |yes: bool| if yes { "yes" } else { "no" };
        let marks = [r.infers, r.quantizes, r.runs, r.deterministic].map(mark).join(" | ");
        out.push_str(&format!("| {name} | {} | {marks} |\n", versions.join(", ")));
    }
    out
}

fn row(schema: Schema, spec: &dyn OpSpec) -> OpRow {
    let key = schema.key;
    OpRow {
        domain: key.domain,
        op_type: key.op_type,
        versions: schema.versions,
        infers: asked(schema, "", |cx| spec.infer(cx).map_or(true, |found| !found.is_empty())),
        // The roles of some depend on their mode.
        quantizes: ["", "edge"].into_iter().any(|mode| {
            asked(schema, mode, |cx| spec.quant(cx) != QuantRole::Opaque || !spec.stored_weights(cx).is_empty())
        }),
        runs: runs(schema),
        deterministic: spec.deterministic(),
    }
}

/// The answer for a node of the newest form on f32 matrices: an operator without a rule says nothing, and one with a
/// rule that the node breaks complains.
fn asked(schema: Schema, mode: &str, question: impl Fn(&InferContext) -> bool) -> bool {
    let mut node = Node::new(OpId::new(schema.key.domain, schema.key.op_type));
    if !mode.is_empty() {
        node.set("mode", mode.into());
    }
    // Bodies, for those that have them; to the others, attributes that they do not know.
    for name in ["body", "then_branch", "else_branch"] {
        node.set(name, AttributeValue::Graph(Box::new(body())));
    }
    node.set("num_scan_inputs", 1i64.into());
    node.output_slots = 1;
    let matrix = Type::tensor(DType::F32, &[2, 2]);
    let known = || Some(Known { ty: Some(&matrix), ..Known::default() });
    // Optional inputs beyond the second are absent, but for `Where`'s.
    let inputs = if schema.key.op_type == "Where" { vec![known(), known(), known()] } else { vec![known(), known()] };
    let inputs = if schema.key.op_type == "Clip" { vec![known()] } else { inputs };
    let opset = schema.versions.last().copied().unwrap_or(1);
    question(&InferContext { node: &node, opset, inputs, used_outputs: 1 })
}

/// A body with two outputs: a condition and a value, or state and what is collected.
fn body() -> Graph {
    let mut graph = Graph::default();
    if let Ok(v) = graph.value_or_new("v") {
        graph.set_outputs(vec![v, v]);
    }
    graph
}

fn runs(schema: Schema) -> bool {
    let key = schema.key;
    runtime::runs(&OpId::new(key.domain, key.op_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_say_what_is_known() {
        let rows = support_table();
        assert!(rows.is_sorted_by(|a, b| (a.domain, a.op_type) < (b.domain, b.op_type)), "an operator has two files");
        let row = |op: &str| rows.iter().find(|r| r.domain.is_empty() && r.op_type == op).unwrap();
        assert!(rows.iter().all(|r| !r.versions.is_empty() && r.versions.is_sorted_by(|a, b| a < b)));
        for op in ["Conv", "MatMul", "Clip", "Where", "Pad", "MaxPool", "Concat"] {
            assert!(row(op).quantizes && row(op).infers, "{op}");
        }
        assert!(!row("Det").quantizes && row("Det").infers);
        assert!(row("If").infers && row("Loop").infers && row("Scan").infers);
        assert!(!row("RandomNormal").deterministic && !row("Multinomial").deterministic);
        assert_eq!(row("GridSample").versions, [16, 20, 22]);
        let text = render_markdown(&rows);
        assert!(text.contains("| GridSample | 16, 20, 22 | yes | no | yes | yes |\n"), "{text}");
        assert_eq!(text.lines().count(), rows.len() + 2);
    }
}
