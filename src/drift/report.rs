//! The account of a rewrite, for people and for programs.

use super::OutputDrift;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// A figure of the original and of the rewritten model.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Change<T> {
    /// The original's.
    pub before: T,
    /// The rewritten model's.
    pub after: T,
}

impl<T> Change<T> {
    /// A change from `before` to `after`.
    pub fn new(before: T, after: T) -> Self {
        Self { before, after }
    }
}

/// What a rewrite changed and what it cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DriftReport {
    /// Names of the two models.
    pub models: Change<String>,
    /// Size in bytes, external data included.
    pub bytes: Change<u64>,
    /// Number of nodes by operator, see [`crate::analysis::cost::op_histogram`].
    pub ops: Change<BTreeMap<String, usize>>,
    /// Multiply-accumulates of one sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub macs: Option<Change<u64>>,
    /// Median time of one inference in tract, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<Change<f64>>,
    /// Number of samples that both models were executed on; 0 where they were not.
    pub samples: u64,
    /// Whether the samples were random numbers for want of data.
    pub random: bool,
    /// The distance of each output.
    pub outputs: Vec<OutputDrift>,
    /// The same before the rewritten model was trained, where it was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub untrained: Vec<OutputDrift>,
    /// Bounds that do not hold, one sentence each, see [`super::Gate`].
    pub violations: Vec<String>,
}

fn joined(lines: Vec<String>) -> String {
    let mut text = String::new();
    for line in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

impl DriftReport {
    /// The report as text, a line for each fact and tables with aligned columns.
    pub fn render(&self) -> String {
        format!("{}\n{}", self.render_changes(), self.render_drift())
    }

    /// The part of the report that needs no execution.
    pub fn render_changes(&self) -> String {
        let mut lines = vec![format!("{} -> {}", self.models.before, self.models.after)];
        lines.extend(aligned(&self.summary()));
        lines.extend(aligned(&self.changed_ops()).into_iter().map(|line| format!("  {line}")));
        joined(lines)
    }

    /// What executing both models on data showed.
    pub fn render_drift(&self) -> String {
        let mut lines = vec![self.headline()];
        if !self.outputs.is_empty() {
            lines.extend(aligned(&self.drift_table()));
        }
        lines.extend(self.outputs.iter().filter_map(accuracy_line));
        for o in &self.untrained {
            let db = if o.sqnr_db.is_finite() { format!("{:.2} dB", o.sqnr_db) } else { "equal".into() };
            lines.push(format!("before training: {}: {db}, cosine {:.6}", o.name, o.mean_cosine));
            lines.extend(accuracy_line(o).map(|line| format!("before training: {line}")));
        }
        let broken = self.outputs.iter().filter(|o| o.non_finite > 0);
        lines.extend(broken.map(|o| format!("{}: {} elements became NaN or infinite", o.name, o.non_finite)));
        lines.extend(self.violations.iter().map(|v| format!("FAILED  {v}")));
        joined(lines)
    }

    fn summary(&self) -> Vec<Vec<String>> {
        let row = |name: &str, before: String, after: String, note: String| {
            vec![name.into(), before, "->".into(), after, note]
        };
        let counts =
            |name: &str, c: &Change<u64>| row(name, grouped(c.before), grouped(c.after), percent_of(c.before, c.after));
        let nodes = |ops: &BTreeMap<String, usize>| ops.values().sum::<usize>() as u64;
        let mut rows = vec![counts("bytes", &self.bytes)];
        rows.extend(self.macs.as_ref().map(|c| counts("MACs", c)));
        rows.push(counts("nodes", &Change::new(nodes(&self.ops.before), nodes(&self.ops.after))));
        if let Some(Change { before, after }) = self.latency_ms {
            let note = speed(before, after);
            rows.push(row("ms in tract", format!("{before:.3}"), format!("{after:.3}"), note));
        }
        rows
    }

    fn changed_ops(&self) -> Vec<Vec<String>> {
        let Change { before, after } = &self.ops;
        let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let count = |ops: &BTreeMap<String, usize>, name: &str| ops.get(name).copied().unwrap_or(0);
        let changes = names.into_iter().map(|name| (name, count(before, name), count(after, name)));
        let changed = changes.filter(|(_, b, a)| b != a);
        changed.map(|(name, b, a)| vec![name.clone(), b.to_string(), "->".into(), a.to_string()]).collect()
    }

    fn headline(&self) -> String {
        let plural = if self.samples == 1 { "" } else { "s" };
        match (self.samples, self.random) {
            (0, _) => "not executed: drift is unknown".into(),
            (n, true) => format!(
                "drift over {} RANDOM sample{plural}: there were no data, so real inputs may drift more or less",
                grouped(n)
            ),
            (n, false) => format!("drift over {} sample{plural}", grouped(n)),
        }
    }

    fn drift_table(&self) -> Vec<Vec<String>> {
        let header = ["output", "SQNR dB", "rel. L2", "max abs", "mean abs", "cosine", "top-1 same", "top-5 has"];
        let mut rows = vec![header.map(String::from).to_vec()];
        let share = |x: Option<f64>| x.map_or("-".into(), |x| format!("{:.2}%", 100.0 * x));
        for o in &self.outputs {
            let db = if o.sqnr_db.is_finite() { format!("{:.2}", o.sqnr_db) } else { "equal".into() };
            rows.push(vec![
                o.name.clone(),
                db,
                format!("{:.3e}", o.relative_l2),
                format!("{:.3e}", o.max_abs),
                format!("{:.3e}", o.mean_abs),
                format!("{:.6}", o.mean_cosine),
                share(o.top1_agreement),
                share(o.top5_agreement),
            ]);
        }
        rows
    }
}

fn accuracy_line(o: &OutputDrift) -> Option<String> {
    let a = o.accuracy.as_ref()?;
    let [low, high] = a.drop_interval;
    Some(format!(
        "{}: accuracy {:.2}% -> {:.2}%, drop {:.2} points (95% interval {low:.2} to {high:.2}; of {} samples {} lost, {} gained)",
        o.name,
        100.0 * a.reference,
        100.0 * a.rewritten,
        a.drop_points,
        grouped(a.labelled),
        a.lost,
        a.gained
    ))
}

fn speed(before: f64, after: f64) -> String {
    if before <= 0.0 || after <= 0.0 {
        return String::new();
    }
    if after <= before {
        format!("{:.2} times faster", before / after)
    } else {
        format!("{:.2} times slower", after / before)
    }
}

fn percent_of(before: u64, after: u64) -> String {
    if before == 0 { String::new() } else { format!("{:.1}%", 100.0 * after as f64 / before as f64) }
}

/// Digits in groups of three.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (k, digit) in digits.chars().enumerate() {
        if k > 0 && (digits.len() - k).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Rows with columns padded to equal width: the first to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |k: usize| rows.iter().filter_map(|r| r.get(k)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let cell = |(k, text): (usize, &String)| match k {
        0 => format!("{text:<0$}", widths[0]),
        _ => format!("{text:>0$}", widths[k]),
    };
    rows.iter().map(|row| row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ")).collect()
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
