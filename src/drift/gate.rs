//! Bounds on what a rewrite may cost.

use super::OutputDrift;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Rounding of a figure that is exactly at its bound must not break it.
const SLACK: f64 = 1e-9;

/// Whether `a >= b`; NaN never is.
fn at_least(a: f64, b: f64) -> bool {
    a >= b - SLACK
}

/// Bounds; those that are `None` are not checked. Outputs that became NaN or infinite break every gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gate {
    /// Largest loss of top-1 accuracy in percentage points.
    pub max_drop: Option<f64>,
    /// Largest relative L2 distance of any output (0.005 = 0.5%).
    pub max_drift: Option<f64>,
    /// Smallest signal to quantization noise of any output, in dB.
    pub min_sqnr: Option<f64>,
    /// Smallest share of samples with the same best class: a fraction up to 1, in percent above.
    pub min_agreement: Option<f64>,
}

impl Gate {
    /// Checks that the bounds mean something.
    ///
    /// # Errors
    /// NaN, and an agreement outside 0 to 100%.
    pub fn validate(&self) -> Result<()> {
        let bounds = [
            ("drift", self.max_drift),
            ("drop", self.max_drop),
            ("SQNR", self.min_sqnr),
            ("agreement", self.min_agreement),
        ];
        if let Some((name, _)) = bounds.iter().find(|(_, b)| b.is_some_and(f64::is_nan)) {
            return Err(Error::usage(format!("the bound on the {name} is not a number")));
        }
        match self.min_agreement {
            Some(x) if !(0.0..=100.0).contains(&x) => {
                Err(Error::usage(format!("agreement of at least {x}: expected a fraction or a percentage")))
            }
            _ => Ok(()),
        }
    }

    /// One sentence for each bound that an output violates, or that cannot be judged.
    pub fn violations(&self, outputs: &[OutputDrift]) -> Vec<String> {
        let mut found = Vec::new();
        for o in outputs.iter().filter(|o| o.non_finite > 0) {
            found.push(format!("{}: {} elements became NaN or infinite.", o.name, o.non_finite));
        }
        self.check_drop(outputs, &mut found);
        self.check_drift(outputs, &mut found);
        self.check_sqnr(outputs, &mut found);
        self.check_agreement(outputs, &mut found);
        found
    }

    fn check_drop(&self, outputs: &[OutputDrift], found: &mut Vec<String>) {
        let Some(bound) = self.max_drop else { return };
        let mut judged = false;
        for (o, a) in outputs.iter().filter_map(|o| o.accuracy.as_ref().map(|a| (o, a))) {
            judged = true;
            if !at_least(bound, a.drop_points) {
                let drop = a.drop_points;
                found.push(format!("{}: accuracy dropped by {drop:.2} points, at most {bound} are allowed.", o.name));
            }
        }
        if !judged {
            found.push(format!("A drop of at most {bound} points cannot be judged: there are no labels."));
        }
    }

    fn check_drift(&self, outputs: &[OutputDrift], found: &mut Vec<String>) {
        let Some(bound) = self.max_drift else { return };
        for o in outputs.iter().filter(|o| !at_least(bound, o.relative_l2)) {
            let (moved, most) = (100.0 * o.relative_l2, 100.0 * bound);
            found.push(format!("{}: it moved by {moved:.3}% (relative L2), at most {most}% are allowed.", o.name));
        }
        if outputs.is_empty() {
            found.push("A bound on the drift cannot be judged: no output was compared.".into());
        }
    }

    fn check_sqnr(&self, outputs: &[OutputDrift], found: &mut Vec<String>) {
        let Some(bound) = self.min_sqnr else { return };
        for o in outputs.iter().filter(|o| !at_least(o.sqnr_db, bound)) {
            found.push(format!("{}: SQNR is {:.2} dB, at least {bound} are required.", o.name, o.sqnr_db));
        }
        if outputs.is_empty() {
            found.push(format!("An SQNR of at least {bound} dB cannot be judged: no output was compared."));
        }
    }

    fn check_agreement(&self, outputs: &[OutputDrift], found: &mut Vec<String>) {
        let Some(bound) = self.min_agreement.map(|x| if x > 1.0 { x } else { 100.0 * x }) else { return };
        let mut judged = false;
        for (o, share) in outputs.iter().filter_map(|o| o.top1_agreement.map(|a| (o, 100.0 * a))) {
            judged = true;
            if !at_least(share, bound) {
                found.push(format!("{}: top-1 agreement is {share:.2}%, at least {bound}% is required.", o.name));
            }
        }
        if !judged {
            found.push(format!("An agreement of at least {bound}% cannot be judged: no output has scores of classes."));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Comparison;
    use super::*;

    /// 3 of 4 samples agree; accuracy 100% and 75%.
    fn output(labels: Option<&[i64]>) -> OutputDrift {
        let u = [1.0f32, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0];
        let v = [0.9f32, 0.0, 1.0, 0.1, 0.0, 1.0, 1.1, 1.0];
        let mut c = Comparison::new();
        c.update(&u, &v, &[4, 2], labels).unwrap();
        c.finish("logits")
    }

    #[test]
    fn bounds_that_hold_are_silent() {
        let outputs = [output(Some(&[0, 0, 1, 1]))];
        let gate = Gate { max_drop: Some(25.0), max_drift: Some(0.6), min_sqnr: Some(5.0), min_agreement: Some(0.75) };
        assert_eq!(gate.violations(&outputs), [""; 0]);
        assert!(gate.validate().is_ok());
        assert_eq!(Gate { min_agreement: Some(75.0), ..Gate::default() }.violations(&outputs), [""; 0]);
        assert_eq!(Gate::default().violations(&[]), [""; 0]);
    }

    #[test]
    fn violations_name_figure_and_bound() {
        let gate = Gate { max_drop: Some(1.0), max_drift: Some(0.01), min_sqnr: Some(30.0), min_agreement: Some(99.0) };
        let expected = [
            "logits: accuracy dropped by 25.00 points, at most 1 are allowed.",
            "logits: it moved by 55.453% (relative L2), at most 1% are allowed.",
            "logits: SQNR is 5.12 dB, at least 30 are required.",
            "logits: top-1 agreement is 75.00%, at least 99% is required.",
        ];
        assert_eq!(gate.violations(&[output(Some(&[0, 0, 1, 1]))]), expected);
    }

    #[test]
    fn what_cannot_be_judged_is_a_violation() {
        let gate = Gate { max_drop: Some(1.0), ..Gate::default() };
        assert_eq!(
            gate.violations(&[output(None)]),
            ["A drop of at most 1 points cannot be judged: there are no labels."]
        );
        let gate = Gate { min_sqnr: Some(1.0), min_agreement: Some(0.9), ..Gate::default() };
        assert_eq!(gate.violations(&[]).len(), 2);
    }

    #[test]
    fn broken_outputs_never_pass() {
        let mut c = Comparison::new();
        c.update(&[1.0f32, 2.0], &[1.0, f32::NAN], &[2, 1], None).unwrap();
        assert_eq!(Gate::default().violations(&[c.finish("y")]), ["y: 1 elements became NaN or infinite."]);
    }

    #[test]
    fn bounds_without_meaning_are_refused() {
        assert!(Gate { min_agreement: Some(101.0), ..Gate::default() }.validate().is_err());
        assert!(Gate { max_drop: Some(f64::NAN), ..Gate::default() }.validate().is_err());
    }
}
