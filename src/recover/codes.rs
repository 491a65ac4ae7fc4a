//! Constants of a quantized model in training: what is learnt, and the values that the network computes with.

use super::parameters::Parameters;
use super::training_form::{BiasSource, Source, store_plain};
use crate::error::{Error, Result};
use crate::ir::{DType, Graph, Model, Tensor};
use crate::math::Array;
use serde::{Deserialize, Serialize};

/// What stands behind a code while it is learnt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Latent {
    /// A number that is rounded; its gradient is that of the code (the straight-through estimator).
    #[default]
    StraightThrough,
    /// The choice between the codes below and above the weight, by a rectified sigmoid that hardens in time (Nagel et al.
    /// 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization").
    Rectified,
}

/// A parameter as it is learnt, per parameter of the network.
#[derive(Clone, Debug)]
pub(super) enum Form {
    /// As it is.
    Plain,
    /// Codes less their zero points.
    Codes(Codes),
    /// Steps, as multiples of what they were.
    Scale(Vec<f32>),
    /// A bias in float, stored in 32 bits.
    Bias(BiasSource),
}

/// The codes of a weight.
#[derive(Clone, Debug)]
pub(super) struct Codes {
    /// Where they are stored.
    pub source: Source,
    /// Smallest and largest code.
    pub bounds: (f32, f32),
    /// Code of zero, by scale.
    pub zero: Vec<f32>,
    /// Of the rectified form: the code below each weight, less its zero point.
    pub floor: Option<Vec<f32>>,
    /// Whether the weight before rounding is known.
    pub exact: bool,
}

/// How far the sigmoid reaches beyond 0 and 1, so that it gets there (Louizos et al. 2018).
const STRETCH: (f32, f32) = (-0.1, 1.1);

/// Exponent of the term that drives choices apart, at its beginning and its end.
const BETA: (f32, f32) = (20.0, 2.0);

/// Share of the run without that term.
const UNDECIDED: f32 = 0.2;

/// Length of that term's gradient, as a multiple of the loss's.
const PRESSURE: f32 = 1.0;

/// Learning rates as multiples of what plain weights have: of latent numbers in units of a step, and of the choice between
/// two codes, which has to come to an end.
const RATE_OF_CODES: f32 = 5.0;
const RATE_OF_CHOICES: f32 = 50.0;

impl Codes {
    fn clamp(&self, k: usize, centred: f32) -> f32 {
        let zero = self.zero(k);
        centred.max(self.bounds.0 - zero).min(self.bounds.1 - zero)
    }

    fn zero(&self, k: usize) -> f32 {
        self.zero[if self.zero.len() == 1 { 0 } else { self.source.map.at(k) }]
    }

    /// Codes as floats, zero points included; `hard`: integers only.
    fn codes(&self, latent: &[f32], hard: bool) -> Vec<f32> {
        let code = |(k, &u): (usize, &f32)| {
            let centred = match &self.floor {
                None => u.round_ties_even(),
                Some(floor) if hard => floor[k] + f32::from(u >= 0.0),
                Some(floor) => floor[k] + rectified(u).0,
            };
            self.clamp(k, centred) + self.zero(k)
        };
        latent.iter().enumerate().map(code).collect()
    }

    /// Turns the gradient by the codes into that by the latent numbers. `done`: share of the run.
    fn chain(&self, latent: &[f32], gradient: &mut [f32], done: f32) {
        let Some(floor) = &self.floor else {
            for (k, (g, &u)) in gradient.iter_mut().zip(latent).enumerate() {
                let rounded = u.round_ties_even();
                if self.clamp(k, rounded) != rounded {
                    *g = 0.0;
                }
            }
            return;
        };
        for (k, (g, &v)) in gradient.iter_mut().zip(latent).enumerate() {
            let (h, slope) = rectified(v);
            let inside = self.clamp(k, floor[k] + h) == floor[k] + h;
            *g = if inside { *g * slope } else { 0.0 };
        }
        if done <= UNDECIDED {
            return;
        }
        let length = |x: &[f32]| x.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt() as f32;
        let beta = BETA.0 + (BETA.1 - BETA.0) * ((done - UNDECIDED) / (1.0 - UNDECIDED)).min(1.0);
        let drives: Vec<f32> = latent.iter().map(|&v| decide(v, beta)).collect();
        let by = PRESSURE * length(gradient) / length(&drives).max(1e-20);
        gradient.iter_mut().zip(drives).for_each(|(g, d)| *g += by * d);
    }
}

/// The rectified sigmoid and its slope.
fn rectified(v: f32) -> (f32, f32) {
    let (sigmoid, span) = (1.0 / (1.0 + (-v).exp()), STRETCH.1 - STRETCH.0);
    let free = span * sigmoid + STRETCH.0;
    let slope = if (0.0..=1.0).contains(&free) { span * sigmoid * (1.0 - sigmoid) } else { 0.0 };
    (free.clamp(0.0, 1.0), slope)
}

/// Where the rectified sigmoid has this value.
fn unrectified(h: f32) -> f32 {
    let sigmoid = ((h - STRETCH.0) / (STRETCH.1 - STRETCH.0)).clamp(1e-3, 1.0 - 1e-3);
    (sigmoid / (1.0 - sigmoid)).ln()
}

/// The slope of `1 - |2h - 1|^beta`, which is 0 where the choice is made.
fn decide(v: f32, beta: f32) -> f32 {
    let (h, slope) = rectified(v);
    let middle = 2.0 * h - 1.0;
    -2.0 * beta * middle.abs().powf(beta - 1.0) * middle.signum() * slope
}

/// The forms of all parameters of a network.
#[derive(Clone, Debug, Default)]
pub(super) struct Forms {
    /// In the order of the parameters; empty where all are plain.
    forms: Vec<Form>,
}

impl Forms {
    pub fn new(forms: Vec<Form>) -> Self {
        Self { forms }
    }

    /// Where latent numbers begin: at the codes, or between them where the weight before rounding is known.
    pub fn start(&mut self, parameters: &mut Parameters<f32>, exact: &[Option<&[f32]>], latent: Latent) {
        for ((form, value), exact) in self.forms.iter_mut().zip(parameters.values_mut()).zip(exact) {
            match form {
                Form::Codes(codes) => {
                    let zeros = (0..value.len()).map(|k| codes.zero(k));
                    let centred: Vec<f32> = value.data().iter().zip(zeros).map(|(q, z)| q - z).collect();
                    let u = codes.start(&centred, *exact, latent);
                    *value = Array::new(value.dims(), u);
                }
                Form::Scale(base) => {
                    *base = value.data().to_vec();
                    *value = Array::full(value.dims(), 1.0);
                }
                Form::Plain | Form::Bias(_) => {}
            }
        }
    }

    /// The values that the network computes with.
    pub fn values(&self, parameters: &Parameters<f32>, hard: bool) -> Parameters<f32> {
        let mut values = parameters.clone(); // arrays are shared
        for (form, value) in self.forms.iter().zip(values.values_mut()) {
            match form {
                Form::Codes(codes) => *value = Array::new(value.dims(), codes.codes(value.data(), hard)),
                Form::Scale(base) => {
                    let steps = value.data().iter().zip(base).map(|(r, s)| r * s).collect();
                    *value = Array::new(value.dims(), steps);
                }
                Form::Plain | Form::Bias(_) => {}
            }
        }
        values
    }

    /// Turns gradients by the values into those by the parameters.
    pub fn chain(&self, parameters: &Parameters<f32>, gradients: &mut [Option<Array<f32>>], done: f64) {
        for ((form, latent), gradient) in self.forms.iter().zip(parameters.values()).zip(gradients) {
            let Some(gradient) = gradient else { continue };
            match form {
                Form::Codes(codes) => codes.chain(latent.data(), gradient.data_mut(), done as f32),
                Form::Scale(base) => gradient.data_mut().iter_mut().zip(base).for_each(|(g, s)| *g *= s),
                Form::Plain | Form::Bias(_) => {}
            }
        }
    }

    /// The learning rate of a parameter, as a multiple of what plain weights have.
    pub fn rate(&self, k: usize) -> f32 {
        match self.forms.get(k) {
            // In units of a step.
            Some(Form::Codes(codes)) if codes.floor.is_some() => RATE_OF_CHOICES,
            Some(Form::Codes(_)) => RATE_OF_CODES,
            _ => 1.0,
        }
    }

    /// Whether a parameter is learnt as it is.
    pub fn is_plain(&self, k: usize) -> bool {
        matches!(self.forms.get(k), None | Some(Form::Plain))
    }

    /// Whether elements of a weight that are 0 are zeros of a sparse weight: with few bits, 0 is a code like the others.
    pub fn keeps_zeros(&self, k: usize, latent: &[f32]) -> bool {
        match self.forms.get(k) {
            Some(Form::Codes(codes)) => {
                let few = codes.bounds.1 - codes.bounds.0 < 100.0;
                codes.floor.is_none()
                    && (codes.exact || !few || 2 * latent.iter().filter(|u| **u == 0.0).count() >= latent.len())
            }
            _ => true,
        }
    }

    /// Writes what was learnt into the model that it came from.
    ///
    /// # Errors
    /// A model that is another.
    pub fn write(&self, parameters: &Parameters<f32>, model: &mut Model) -> Result<()> {
        if self.forms.is_empty() {
            return parameters.write(model);
        }
        let (values, graph) = (self.values(parameters, true), &mut model.graph);
        for ((form, p), value) in self.forms.iter().zip(parameters.list()).zip(values.values()) {
            match form {
                Form::Plain => store_plain(graph, &p.name, value, p.dtype)?,
                Form::Scale(_) => store_plain(graph, &p.name, value, DType::F32)?,
                Form::Codes(codes) => store(graph, &codes.source.codes, packed(codes.source.dtype, value)?)?,
                Form::Bias(bias) => {
                    let steps = bias.weight_scale.as_ref().and_then(|name| parameters.get(name));
                    bias.write(value, steps, graph)?;
                }
            }
        }
        Ok(())
    }
}

impl Codes {
    /// Latent numbers that stand for these codes, as near to the weight before rounding as may be.
    fn start(&mut self, centred: &[f32], exact: Option<&[f32]>, latent: Latent) -> Vec<f32> {
        // From here the next code is not far, and rounding still comes back to this one.
        const REACH: f32 = 0.45;
        self.exact = exact.is_some();
        let between = |(&q, &w): (&f32, &f32)| if w == 0.0 && q == 0.0 { 0.0 } else { w.clamp(q - REACH, q + REACH) };
        let near: Vec<f32> = centred.iter().zip(exact.unwrap_or(centred)).map(between).collect();
        if latent == Latent::StraightThrough {
            return near;
        }
        let choices = near.iter().map(|u| unrectified(u - u.floor())).collect();
        self.floor = Some(near.into_iter().map(f32::floor).collect());
        choices
    }
}

/// Puts a tensor in the place of a constant.
pub(super) fn store(graph: &mut Graph, name: &str, mut tensor: Tensor) -> Result<()> {
    let v = graph.find(name).ok_or_else(|| Error::internal(format!("the model has no initializer \"{name}\"")))?;
    let value = graph.value_mut(v);
    tensor.extra = value.init.as_ref().and_then(|t| t.extra.clone());
    value.init = Some(tensor);
    Ok(())
}

/// Codes in their type.
pub(super) fn packed(dtype: DType, codes: &Array<f32>) -> Result<Tensor> {
    let dims = codes.dims();
    let codes = codes.data();
    Ok(match dtype {
        DType::I8 => Tensor::from_i8(dims, &codes.iter().map(|&q| q as i8).collect::<Vec<_>>()),
        DType::U8 => Tensor::from_u8(dims, &codes.iter().map(|&q| q as u8).collect::<Vec<_>>()),
        DType::I4 | DType::U4 => {
            let nibble = |q: &f32| (*q as i32 & 15) as u8;
            let bytes: Vec<u8> =
                codes.chunks(2).map(|c| nibble(&c[0]) | c.get(1).map_or(0, |q| nibble(q) << 4)).collect();
            Tensor::raw(dtype, dims, bytes)
        }
        other => return Err(Error::unsupported(format!("codes of type {other} are not trained"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::quant::dequantize_linear::ScaleMap;

    fn codes() -> Codes {
        let source = Source {
            codes: "w".into(),
            dtype: DType::I4,
            map: ScaleMap::One,
            scale: vec![1.0],
            scale_name: "s".into(),
        };
        Codes { source, bounds: (-4.0, 3.0), zero: vec![0.0], floor: None, exact: false }
    }

    const CODES: [f32; 6] = [-4.0, -1.0, 0.0, 0.0, 1.0, 3.0];
    const WEIGHTS: [f32; 6] = [-6.0, -0.4, 0.0, 0.3, 2.9, 3.2];

    #[test]
    fn learning_begins_at_the_codes() {
        for latent in [Latent::StraightThrough, Latent::Rectified] {
            for exact in [None, Some(&WEIGHTS[..])] {
                let mut codes = codes();
                let start = codes.start(&CODES, exact, latent);
                assert_eq!(codes.codes(&start, true), CODES, "{latent:?}");
            }
        }
        let start = codes().start(&CODES, Some(&WEIGHTS), Latent::StraightThrough);
        assert_eq!(start[2], 0.0, "a zero is one");
        assert!((start[3] - 0.3).abs() < 1e-6 && (start[4] - 1.45).abs() < 1e-6);
    }

    #[test]
    fn gradients_stop_where_codes_saturate() {
        let codes = codes();
        let mut gradient = [1.0; 4];
        codes.chain(&[-4.6, 0.4, 3.4, 3.6], &mut gradient, 0.0);
        assert_eq!(gradient, [0.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn the_rectified_sigmoid_reaches_both_ends_and_its_slope_is_its_derivative() {
        assert_eq!((rectified(-9.0), rectified(9.0)), ((0.0, 0.0), (1.0, 0.0)));
        for v in [-2.0f32, -0.3, 0.0, 0.7, 2.0] {
            let slope = (rectified(v + 1e-2).0 - rectified(v - 1e-2).0) / 2e-2;
            assert!((slope - rectified(v).1).abs() < 1e-3, "{v}");
            assert!((unrectified(rectified(v).0) - v).abs() < 1e-3);
            for beta in [2.0, 6.0] {
                let term = |v: f32| 1.0 - (2.0 * rectified(v).0 - 1.0).abs().powf(beta);
                let slope = (term(v + 1e-2) - term(v - 1e-2)) / 2e-2;
                assert!((slope - decide(v, beta)).abs() < 1e-2, "{v} {beta}: {slope} {}", decide(v, beta));
            }
        }
    }

    #[test]
    fn the_pressure_drives_choices_apart() {
        let mut codes = codes();
        codes.floor = Some(vec![0.0; 2]);
        let mut gradient = [1e-6, 1e-6];
        codes.chain(&[0.5, -0.5], &mut gradient, 0.9);
        assert!(gradient[0] < 0.0 && gradient[1] > 0.0, "{gradient:?}");
    }

    #[test]
    fn nibbles_hold_signed_codes() {
        let t = packed(DType::I4, &Array::new(&[5], vec![-8.0, 7.0, -1.0, 0.0, 3.0])).unwrap();
        assert_eq!(t.to_i64().unwrap(), [-8, 7, -1, 0, 3]);
        let t = packed(DType::U4, &Array::new(&[3], vec![15.0, 0.0, 9.0])).unwrap();
        assert_eq!(t.to_i64().unwrap(), [15, 0, 9]);
    }
}
