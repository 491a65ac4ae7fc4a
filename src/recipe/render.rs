//! The report of a run as text.

use super::convert::Conversion;
use super::prune::{PruneReport, PrunedLayer};
use super::run::RunReport;
use super::search::Searched;
use super::sparsify::{SparseWeight, SparsifyReport};
use super::trials::Trials;
use crate::drift::Agreement;
use crate::passes::quantize::{Coverage, Share};
use std::collections::BTreeMap;
use std::fmt::Write;

impl RunReport {
    /// The report for people.
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        for pass in self.passes.iter().filter(|p| p.changes > 0) {
            let _ = writeln!(out, "{:<26} {:>6} changes {:>9.1} ms", pass.pass, pass.changes, pass.milliseconds);
            for (rule, changes) in &pass.rules {
                let _ = writeln!(out, "  {rule:<36} {changes:>6}");
            }
        }
        for note in self.passes.iter().flat_map(|p| &p.notes) {
            let subject = if note.subject.is_empty() { String::new() } else { format!("{}: ", note.subject) };
            let _ = writeln!(out, "note  {}: {subject}{}", note.pass, note.text);
        }
        for note in &self.notes {
            let _ = writeln!(out, "note  {note}");
        }
        if let Some(prune) = &self.prune {
            render_prune(prune, &mut out);
        }
        if let Some(sparse) = &self.sparsify {
            render_sparsify(sparse, &mut out);
        }
        if let Some(trials) = &self.trials {
            render_trials(trials, &mut out);
        }
        if let Some(c) = self.calibration.as_ref().filter(|c| c.values > 0) {
            let kind = if c.random { "RANDOM samples (no data were given)" } else { "samples" };
            let _ = writeln!(out, "calibrated {} values on {} {kind}, method {}", c.values, c.samples, c.method);
        }
        if let Some(found) = &self.search {
            render_search(found, &mut out);
        }
        if let Some(coverage) = &self.coverage {
            render_coverage(coverage, &mut out);
        }
        if let Some(conversion) = &self.conversion {
            render_conversion(conversion, &mut out);
        }
        if let Some(d) = &self.rounding {
            super::distill::render(d, &mut out);
        }
        if let Some(d) = &self.distillation {
            super::distill::render(d, &mut out);
        }
        out.push('\n');
        out.push_str(&self.drift.render_changes());
        out.push('\n');
        if let Some(agreement) = &self.agreement {
            render_agreement(agreement, &mut out);
        }
        if self.agreement.is_none() || self.drift.samples > 0 {
            out.push_str(&self.drift.render_drift());
        }
        let result = if self.written { "wrote" } else { "NOT written:" };
        let _ = writeln!(out, "\n{result} {}", self.output.display());
        out
    }
}

fn render_trials(trials: &Trials, out: &mut String) {
    let decibels = |e: f64| -20.0 * e.log10();
    let rows = trials.options.iter().map(|o| {
        let what = if o.kept { "kept" } else { "LEFT OUT" };
        format!("{} {:.2} dB ({what})", o.name, decibels(o.relative_l2))
    });
    let rows: Vec<String> = rows.collect();
    let _ = writeln!(
        out,
        "accuracy options, each on top of those kept, {} samples: none {:.2} dB, {}",
        trials.samples,
        decibels(trials.without),
        rows.join(", ")
    );
}

fn render_search(found: &Searched, out: &mut String) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    found.assignment.values().for_each(|p| *counts.entry(p.name()).or_default() += 1);
    let counts: Vec<String> = counts.into_iter().map(|(p, n)| format!("{n} in {p}")).collect();
    let _ = writeln!(
        out,
        "search: {} models on {} samples; layers: {} ({} bytes; all in the cheapest: {})",
        found.measurements,
        found.samples,
        counts.join(", "),
        found.bytes,
        found.cheapest_bytes
    );
    let cheapest = found.assignment.values().max().copied();
    for (name, precision) in found.assignment.iter().filter(|(_, p)| Some(**p) != cheapest) {
        let _ = writeln!(out, "  {:<4} {name}", precision.name());
    }
}

fn render_conversion(conversion: &Conversion, out: &mut String) {
    let to = &conversion.to;
    if conversion.weights_only {
        let _ = writeln!(out, "weights are stored in {to}; everything is computed in f32");
        return;
    }
    let _ = match conversion.samples {
        0 => writeln!(out, "{} nodes compute in {to} (without data, ranges are not known)", conversion.converted),
        n => writeln!(out, "{} nodes compute in {to}; ranges were observed on {n} samples", conversion.converted),
    };
    if !conversion.kept.is_empty() {
        let _ = writeln!(out, "left in f32 (--json names each node):");
    }
    for (reason, ops) in conversion.reasons() {
        let ops: Vec<String> = ops.into_iter().map(|(op, n)| format!("{n} {op}")).collect();
        let _ = writeln!(out, "  {}: {reason}", ops.join(", "));
    }
}

fn render_prune(prune: &PruneReport, out: &mut String) {
    let percent = |(before, after): (u64, u64)| 100.0 * after as f64 / before.max(1) as f64;
    let cut: Vec<&PrunedLayer> = prune.layers.iter().filter(|l| l.after < l.before).collect();
    let channels = |f: fn(&PrunedLayer) -> usize| cut.iter().map(|l| f(l)).sum::<usize>();
    let _ = writeln!(
        out,
        "pruned {} of {} layers from {} to {} channels: {:.1}% of MACs and {:.1}% of parameters are left",
        cut.len(),
        prune.layers.len(),
        channels(|l| l.before),
        channels(|l| l.after),
        percent(prune.macs),
        percent(prune.params),
    );
    for layer in &cut {
        let _ = writeln!(out, "  {:<40} {:>6} -> {:>6}", layer.name, layer.before, layer.after);
    }
    let whole = prune.layers.iter().filter(|l| l.reason.is_some()).count();
    if whole > 0 {
        let _ = writeln!(out, "left whole: {whole} (sardonyx groups says why)");
    }
    if prune.samples > 0 {
        let kind = if prune.random { "RANDOM samples (no data were given)" } else { "samples" };
        let (samples, fitted, norms) = (prune.samples, prune.refitted, prune.reestimated);
        let _ =
            writeln!(out, "on {samples} {kind}: refitted {fitted} layers, re-estimated {norms} BatchNormalizations");
    }
    if let Some((before, after)) = prune.milliseconds {
        let share = 100.0 * after / before.max(1e-9);
        let _ = writeln!(
            out,
            "one sample in tract, one thread: {before:.2} ms -> {after:.2} ms ({share:.0}%), as measured here; it varies from run to run"
        );
    }
    for note in &prune.notes {
        let _ = writeln!(out, "note  {note}");
    }
}

fn render_sparsify(report: &SparsifyReport, out: &mut String) {
    let sum = |f: fn(&SparseWeight) -> usize| report.layers.iter().map(f).sum::<usize>();
    let all = sum(|l| l.elements).max(1);
    let zeros = |n: usize| 100.0 * (all - n) as f64 / all as f64;
    let _ = writeln!(
        out,
        "zeros in {} weights of products: {:.1}% -> {:.1}%",
        report.layers.len(),
        zeros(sum(|l| l.nonzero.0)),
        zeros(sum(|l| l.nonzero.1)),
    );
    if report.macs.1 != report.macs.0 {
        let _ = writeln!(out, "multiply-accumulates: {} -> {}", report.macs.0, report.macs.1);
    }
    if report.fitted > 0 {
        let kind = if report.random { "RANDOM samples (no data were given)" } else { "samples" };
        let _ = writeln!(out, "fitted {} layers on {} {kind}", report.fitted, report.samples);
    }
    for note in &report.notes {
        let _ = writeln!(out, "note  {note}");
    }
    let _ = writeln!(
        out,
        "constants: {} -> {} bytes, {} -> {} of them sparse; ONNX Runtime and tract make dense tensors of those: bytes are saved, not time",
        report.bytes.0, report.bytes.1, report.sparse.0, report.sparse.1
    );
    for note in &report.notes {
        let _ = writeln!(out, "note  {note}");
    }
}

fn render_agreement(agreement: &Agreement, out: &mut String) {
    let _ = match &agreement.not_executed {
        Some(why) => writeln!(out, "NOT EXECUTED against the original: {why}"),
        None => writeln!(
            out,
            "executed against the original on {} made-up inputs: same outputs (largest relative L2 {:.1e})",
            agreement.probes, agreement.relative_l2
        ),
    };
    for skipped in &agreement.skipped {
        let _ = writeln!(out, "  the original does not take {skipped}");
    }
}

fn render_coverage(coverage: &Coverage, out: &mut String) {
    let percent = |s: Share| if s.total == 0 { 0.0 } else { 100.0 * s.quantized as f64 / s.total as f64 };
    let _ = writeln!(
        out,
        "quantized {} of {} nodes, {:.1}% of MACs, {:.1}% of weight bytes",
        coverage.nodes.quantized,
        coverage.nodes.total,
        percent(coverage.macs),
        percent(coverage.weight_bytes),
    );
    if coverage.stored_nodes > 0 {
        let share = Share { quantized: coverage.stored_macs, total: coverage.macs.total };
        let _ = writeln!(
            out,
            "of these, {} compute in float on weights stored in fewer bits ({:.1}% of MACs)",
            coverage.stored_nodes,
            percent(share)
        );
    }
    let reasons = coverage.reasons();
    if !reasons.is_empty() {
        let _ = writeln!(out, "left in float (--json names each node):");
    }
    for (reason, ops) in reasons {
        let ops: Vec<String> = ops.into_iter().map(|(op, n)| format!("{n} {op}")).collect();
        let _ = writeln!(out, "  {}: {reason}", ops.join(", "));
    }
}
