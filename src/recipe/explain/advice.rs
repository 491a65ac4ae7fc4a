//! What to do about the roundings that cost most.

use super::{ExplainReport, RoundingReport};

/// Roundings below this share of the drift are not worth a word, in percent.
const WORTH: f64 = 5.0;

/// At most this many are spoken of.
const MOST: usize = 5;

/// Clipping of more elements than this, in percent, is a choice to look at.
const CLIPPED: f64 = 0.1;

/// A range of which less than half is used came from other data.
const UNUSED: f64 = 50.0;

/// A value whose peak is so many times its root mean square spends its codes on outliers.
const PEAKY: f64 = 12.0;

/// One line each, most expensive first.
pub(super) fn advice(report: &ExplainReport) -> Vec<String> {
    let mut rows: Vec<&RoundingReport> = report.roundings.iter().filter(|r| r.share >= WORTH).collect();
    rows.sort_by(|a, b| b.share.total_cmp(&a.share));
    let mut lines: Vec<String> = rows.into_iter().take(MOST).map(|r| line(r, has_weight(report, r))).collect();
    if !(0.9..=1.1).contains(&report.explained) {
        lines.push(format!(
            "the roundings that were found explain {:.0}% of the drift: the rest comes from rewriting that has no counterpart by name",
            100.0 * report.explained
        ));
    }
    lines
}

/// Whether the layer has a weight of its own, so that leaving it in float helps by itself.
fn has_weight(report: &ExplainReport, row: &RoundingReport) -> bool {
    report.roundings.iter().any(|r| r.kind == "weight" && r.layer == row.layer)
}

fn line(r: &RoundingReport, has_weight: bool) -> String {
    let place = if r.layer.is_empty() { format!("input \"{}\"", r.value) } else { format!("layer \"{}\"", r.layer) };
    let head = format!("{place}: its {} costs {:.0}% of the drift", r.kind, r.share);
    let keep = if has_weight { format!("; --node '{}=f32' leaves it in float", r.layer) } else { String::new() };
    if r.kind == "weight" {
        let why = if r.peak > PEAKY { "few large elements take up the steps" } else { "its steps are coarse" };
        return format!(
            "{head} ({:.1} dB): {why}; more bits, or rounding against calibration data, help{keep}",
            r.sqnr_db
        );
    }
    match (r.saturated.unwrap_or(0.0), r.unused_range.unwrap_or(0.0)) {
        (s, _) if s > CLIPPED => format!(
            "{head}: {s:.2}% of \"{}\" are clipped; --method minmax, or a higher percentile, clips less{keep}",
            r.value
        ),
        (_, u) if u > UNUSED => format!(
            "{head}: {u:.0}% of the codes of \"{}\" are never used; calibrate on data like these{keep}",
            r.value
        ),
        _ if r.peak > PEAKY => format!(
            "{head}: \"{}\" has outliers of {:.0} times its root mean square; moving them into weights, or 16 bits, helps{keep}",
            r.value, r.peak
        ),
        _ => format!("{head} ({:.1} dB): 8 bits are too few for \"{}\"{keep}", r.sqnr_db, r.value),
    }
}
