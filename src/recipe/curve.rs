//! The learning curve of a run as a web page.

use super::explain::{SIZE, STYLE, drawing, escape};
use super::run::RunReport;
use crate::error::{Error, Result};
use crate::recover::Distillation;
use plotters::prelude::*;
use std::fmt::Write;

const TRAINING: RGBColor = RGBColor(230, 130, 30);
const VALIDATION: RGBColor = RGBColor(50, 100, 200);

impl RunReport {
    /// The learning curve as a page that needs no other file: figures, plot, table.
    ///
    /// # Errors
    /// A run that trained nothing.
    pub fn curve_html(&self) -> Result<String> {
        let d = self.distillation.as_ref().ok_or_else(|| Error::usage("--html shows training, and there was none"))?;
        let mut page = String::new();
        let (a, b) = (escape(&self.input.display().to_string()), escape(&self.output.display().to_string()));
        // Writing to a String cannot fail.
        let _ = write!(
            page,
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{b}</title><style>{STYLE}</style>\
             <h1>{b}</h1><p>Made of {a}. {} samples, {} held out; {} steps in {:.0} s. Loss on what is held out: \
             <b>{:.5} &rarr; {:.5}</b>, the best after step {}.</p><p>{}</p><h2>Loss</h2><p>Logarithmic; blue: on what is \
             held out, orange: in training (augmented, with features).</p>{}",
            d.training_samples,
            d.held_out_samples,
            d.steps,
            d.seconds,
            d.before,
            d.after,
            d.best_step,
            escape(d.stopped.as_deref().unwrap_or("It ran to its end.")),
            plot(d)?
        );
        page.push_str("<h2>Table</h2><table><tr><th>step<th>training<th>held out");
        for p in &d.curve {
            let best = if p.step == d.best_step { "<b>" } else { "" };
            let _ = write!(page, "<tr><td>{best}{}<td>{:.5}<td>{:.5}", p.step, p.training, p.validation);
        }
        page.push_str("</table>");
        if !d.frozen.is_empty() {
            page.push_str("<h2>Not trained</h2><table><tr><th>parameter<th>numbers<th>why");
            for f in &d.frozen {
                let (name, why) = (escape(&f.parameter), escape(&f.why));
                let _ = write!(page, "<tr><td>{name}<td>{}<td class=\"name\">{why}", f.elements);
            }
            page.push_str("</table>");
        }
        Ok(page)
    }
}

fn plot(d: &Distillation) -> Result<String> {
    let positive = |(step, loss): (usize, f64)| (loss > 0.0).then_some((step as f64, loss));
    let held_out = std::iter::once((0, d.before)).chain(d.curve.iter().map(|p| (p.step, p.validation)));
    let held_out: Vec<(f64, f64)> = held_out.filter_map(positive).collect();
    let training: Vec<(f64, f64)> = d.curve.iter().map(|p| (p.step, p.training)).filter_map(positive).collect();
    let all = || held_out.iter().chain(&training).map(|p| p.1);
    let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
    if most <= 0.0 {
        return Ok(String::new());
    }
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let steps = d.steps.max(1) as f64;
        let mut chart = ChartBuilder::on(&area)
            .margin(8)
            .x_label_area_size(24)
            .y_label_area_size(64)
            .build_cartesian_2d(0f64..steps, (least * 0.9..most * 1.1).log_scale())
            .map_err(drawing)?;
        chart.configure_mesh().x_desc("step").y_desc("loss").draw().map_err(drawing)?;
        for (points, color) in [(training, TRAINING), (held_out, VALIDATION)] {
            chart.draw_series([PathElement::new(points, color.stroke_width(2))]).map_err(drawing)?;
        }
        area.present().map_err(drawing)?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recover::Point;

    #[test]
    fn curves_are_drawn() {
        let point = |step, loss: f64| Point { step, training: 2.0 * loss, validation: loss };
        let d = Distillation {
            before: 1.0,
            steps: 20,
            curve: vec![point(10, 0.1), point(20, 0.01)],
            ..Distillation::default()
        };
        let svg = plot(&d).unwrap();
        assert!(svg.starts_with("<svg") && svg.matches("<polyline").count() >= 2);
        assert_eq!(plot(&Distillation::default()).unwrap(), "");
    }
}
