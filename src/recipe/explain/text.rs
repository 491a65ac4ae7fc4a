//! The account as text.

use super::ExplainReport;
use std::fmt::Write;

impl ExplainReport {
    /// The account for people, in execution order.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let kind = if self.random { "RANDOM samples (no data were given)" } else { "samples" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{} against {}: output \"{}\" moved by {:.3e} (relative L2), {:.2} dB, over {} {kind}",
            self.quantized, self.original, self.output, self.relative_l2, self.sqnr_db, self.samples
        );
        let _ = writeln!(out, "the roundings below add up to {:.1}% of that, squared", 100.0 * self.explained);
        let place = |layer: &str| if layer.is_empty() { "(input)".to_string() } else { layer.to_string() };
        let width = self.roundings.iter().map(|r| place(&r.layer).len()).max().unwrap_or(0).clamp(5, 48);
        let _ = writeln!(
            out,
            "{:<width$}  {:<10}  {:>7}  {:>8}  {:>8}  {:>8}  {:>7}  {:>6}  value",
            "layer", "rounding", "share", "own dB", "here dB", "clipped", "unused", "peak"
        );
        let percent = |x: Option<f64>, digits: usize| x.map_or("-".into(), |x| format!("{x:.digits$}%"));
        for r in &self.roundings {
            let here = r.arriving_sqnr_db.map_or("-".into(), |db| format!("{db:.2}"));
            let _ = writeln!(
                out,
                "{:<width$}  {:<10}  {:>6.1}%  {:>8.2}  {here:>8}  {:>8}  {:>7}  {:>6.1}  {}",
                place(&r.layer),
                r.kind,
                r.share,
                r.sqnr_db,
                percent(r.saturated, 3),
                percent(r.unused_range, 1),
                r.peak,
                r.value
            );
        }
        if !self.advice.is_empty() {
            out.push_str("\nwhat to do:\n");
        }
        for line in &self.advice {
            let _ = writeln!(out, "  {line}");
        }
        out
    }
}
