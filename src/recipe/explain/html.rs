//! The account as one HTML file that needs nothing else.

use super::{ExplainReport, RoundingReport};
use crate::error::{Error, Result};
use plotters::prelude::*;
use std::fmt::Write;

pub(in crate::recipe) const STYLE: &str = "body{font:14px/1.4 system-ui,sans-serif;margin:2em auto;max-width:1100px;color:#222}\
table{border-collapse:collapse;width:100%}th,td{padding:2px 8px;text-align:right;border-bottom:1px solid #ddd}\
th:first-child,td:first-child,td.name{text-align:left}svg{max-width:100%;height:auto}.bad{color:#b00020}";

pub(in crate::recipe) const SIZE: (u32, u32) = (1080, 320);

impl ExplainReport {
    /// The account as a page: figures, plots, table, advice.
    ///
    /// # Errors
    /// None in practice: the plots are drawn in memory.
    pub fn html(&self) -> Result<String> {
        let mut page = String::new();
        let (a, b) = (escape(&self.original), escape(&self.quantized));
        let kind = if self.random { "RANDOM samples (no data were given)" } else { "samples" };
        // Writing to a String cannot fail.
        let _ = write!(
            page,
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{b}</title><style>{STYLE}</style>\
             <h1>{b}</h1><p>Compared with {a} over {} {kind}: output <b>{}</b> moved by {:.3e} (relative L2), {:.2} dB. \
             The roundings below add up to {:.1}% of that, squared.</p>",
            self.samples,
            escape(&self.output),
            self.relative_l2,
            self.sqnr_db,
            100.0 * self.explained
        );
        if !self.advice.is_empty() {
            page.push_str("<h2>What to do</h2><ul>");
            self.advice.iter().for_each(|line| page.push_str(&format!("<li>{}</li>", escape(line))));
            page.push_str("</ul>");
        }
        page.push_str(
            "<h2>What each rounding costs</h2><p>Percent of the squared error, in execution order; \
                       blue: activations, orange: weights.</p>",
        );
        page.push_str(&self.plot_shares()?);
        page.push_str(
            "<h2>Signal to noise</h2><p>dB; thick: with all errors from before, thin: of the rounding alone.</p>",
        );
        page.push_str(&self.plot_sqnr()?);
        page.push_str("<h2>Table</h2>");
        self.table(&mut page);
        page.push_str("</html>\n");
        Ok(page)
    }

    fn plot_shares(&self) -> Result<String> {
        let rows = &self.roundings;
        let high = rows.iter().map(|r| r.share).fold(1.0, f64::max) * 1.05;
        let low = rows.iter().map(|r| r.share).fold(0.0, f64::min) * 1.05;
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            let mut chart = ChartBuilder::on(&area)
                .margin(8)
                .x_label_area_size(24)
                .y_label_area_size(48)
                .build_cartesian_2d(0f64..rows.len() as f64, low..high)
                .map_err(drawing)?;
            chart.configure_mesh().disable_x_mesh().y_desc("%").draw().map_err(drawing)?;
            let bar = |(k, r): (usize, &RoundingReport)| {
                let color = if r.kind == "weight" { RGBColor(230, 130, 30) } else { RGBColor(50, 100, 200) };
                Rectangle::new([(k as f64 + 0.1, 0.0), (k as f64 + 0.9, r.share)], color.filled())
            };
            chart.draw_series(rows.iter().enumerate().map(bar)).map_err(drawing)?;
            area.present().map_err(drawing)?;
        }
        Ok(svg)
    }

    fn plot_sqnr(&self) -> Result<String> {
        const CEILING: f64 = 80.0;
        let own: Vec<(f64, f64)> =
            (0..).zip(&self.roundings).map(|(k, r)| (f64::from(k), r.sqnr_db.min(CEILING))).collect();
        let here =
            (0..).zip(&self.roundings).filter_map(|(k, r)| Some((f64::from(k), r.arriving_sqnr_db?.min(CEILING))));
        let here: Vec<(f64, f64)> = here.collect();
        let least = own.iter().chain(&here).map(|p| p.1).fold(0.0, f64::min);
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            let mut chart = ChartBuilder::on(&area)
                .margin(8)
                .x_label_area_size(24)
                .y_label_area_size(48)
                .build_cartesian_2d(0f64..self.roundings.len() as f64, least..CEILING)
                .map_err(drawing)?;
            chart.configure_mesh().disable_x_mesh().y_desc("dB").draw().map_err(drawing)?;
            let line = |points: Vec<(f64, f64)>, width: u32| {
                PathElement::new(points, RGBColor(50, 100, 200).stroke_width(width))
            };
            chart.draw_series([line(own, 1), line(here, 3)]).map_err(drawing)?;
            area.present().map_err(drawing)?;
        }
        Ok(svg)
    }

    fn table(&self, page: &mut String) {
        page.push_str("<table><tr><th>layer<th>operator<th>rounding<th>share<th>own dB<th>arriving dB<th>clipped<th>unused<th>peak<th>value");
        let percent = |x: Option<f64>, digits: usize| x.map_or("–".into(), |x| format!("{x:.digits$}%"));
        for r in &self.roundings {
            let class = if r.share >= 10.0 { " class=\"bad\"" } else { "" };
            // Writing to a String cannot fail.
            let _ = write!(
                page,
                "<tr><td>{}<td>{}<td>{}<td{class}>{:.1}%<td>{:.2}<td>{}<td>{}<td>{}<td>{:.1}<td class=\"name\">{}",
                escape(&r.layer),
                escape(&r.op),
                r.kind,
                r.share,
                r.sqnr_db,
                r.arriving_sqnr_db.map_or("–".into(), |db| format!("{db:.2}")),
                percent(r.saturated, 3),
                percent(r.unused_range, 1),
                r.peak,
                escape(&r.value)
            );
        }
        page.push_str("</table>");
    }
}

pub(in crate::recipe) fn drawing(e: impl std::fmt::Display) -> Error {
    Error::internal(format!("drawing a plot: {e}"))
}

pub(in crate::recipe) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_its_plots_and_escapes_names() {
        let row = |kind: &'static str, share: f64| RoundingReport {
            kind,
            layer: "<conv>".into(),
            op: "Conv".into(),
            value: "x&y".into(),
            sqnr_db: 40.0,
            arriving_sqnr_db: (kind == "activation").then_some(35.0),
            share,
            saturated: None,
            unused_range: None,
            peak: 3.0,
        };
        let report = ExplainReport {
            original: "a.onnx".into(),
            quantized: "b.onnx".into(),
            samples: 4,
            random: false,
            output: "y".into(),
            relative_l2: 0.01,
            sqnr_db: 40.0,
            explained: 1.0,
            roundings: vec![row("weight", 70.0), row("activation", 30.0)],
            advice: vec!["a < b".into()],
        };
        let page = report.html().unwrap();
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(page.contains("&lt;conv&gt;") && page.contains("x&amp;y") && page.contains("a &lt; b"));
        assert!(!page.contains("<conv>") && !page.contains("http://") || page.contains("www.w3.org"));
    }
}
