//! Optimizers and the learning rate over time.

use super::parameters::{Parameters, Role};
use crate::math::Array;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How gradients become steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization").
    #[default]
    #[serde(rename = "adamw")]
    AdamW,
    /// Gradient descent with Nesterov momentum.
    Sgd,
}

const BETAS: (f32, f32) = (0.9, 0.999);
const EPSILON: f32 = 1e-8;
const MOMENTUM: f32 = 0.9;

/// The state of an optimizer over the parameters of a network.
#[derive(Clone)]
pub(super) struct Optimizer {
    method: Method,
    decay: f32,
    steps: i32,
    first: Vec<Vec<f32>>,
    second: Vec<Vec<f32>>,
    /// Per parameter: elements that stay 0; empty where there is none.
    zeros: Vec<Vec<bool>>,
    /// Per parameter: learning rate, as a multiple of the run's; and whether it decays.
    rates: Vec<(f32, bool)>,
}

/// How one parameter is trained.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    /// Learning rate, as a multiple of the run's.
    pub rate: f32,
    /// Whether a weight decays.
    pub decays: bool,
    /// Whether elements of a weight that are 0 now stay 0.
    pub keeps_zeros: bool,
}

impl Optimizer {
    /// `rates`: by the position of a parameter, and its value.
    pub fn new(
        method: Method,
        decay: f32,
        parameters: &Parameters<f32>,
        rates: &dyn Fn(usize, &Array<f32>) -> Rates,
    ) -> Self {
        let none = || parameters.values().iter().map(|_| vec![]).collect();
        let all: Vec<Rates> = parameters.values().iter().enumerate().map(|(k, w)| rates(k, w)).collect();
        let zeros =
            |(w, r): (&Array<f32>, &Rates)| match r.keeps_zeros && w.rank() > 1 && w.data().iter().any(|&x| x != 0.0) {
                true if w.data().contains(&0.0) => w.data().iter().map(|&x| x == 0.0).collect(),
                _ => vec![],
            };
        let zeros = parameters.values().iter().zip(&all).map(zeros).collect();
        let rates = all.iter().map(|r| (r.rate, r.decays)).collect();
        Self { method, decay, steps: 0, first: none(), second: none(), zeros, rates }
    }

    /// Number of elements that stay 0.
    pub fn kept_zeros(&self) -> usize {
        self.zeros.iter().flatten().filter(|z| **z).count()
    }

    /// Running means of gradients and of their squares, per parameter; empty where there was none yet.
    pub fn moments(&self) -> [&[Vec<f32>]; 2] {
        [&self.first, &self.second]
    }

    /// Goes on after `steps` steps with these moments.
    pub fn restore(&mut self, steps: usize, [first, second]: [Vec<Vec<f32>>; 2]) {
        self.steps = i32::try_from(steps).unwrap_or(i32::MAX);
        (self.first, self.second) = (first, second);
    }

    /// One step.
    pub fn step(&mut self, parameters: &mut Parameters<f32>, gradients: &[Option<Array<f32>>], rate: f32) {
        self.steps += 1;
        let roles: Vec<Role> = parameters.list().iter().map(|p| p.role).collect();
        let correction = (1.0 - BETAS.0.powi(self.steps), 1.0 - BETAS.1.powi(self.steps));
        let (method, decay) = (self.method, self.decay);
        let state = self.first.par_iter_mut().zip(&mut self.second).zip(self.zeros.par_iter().zip(&self.rates));
        let values = parameters.values_mut().par_iter_mut().zip(gradients).zip(&roles);
        values.zip(state).for_each(|(((w, g), role), ((first, second), (zeros, &(times, decays))))| {
            let Some(g) = g.as_ref().filter(|_| *role == Role::Trained) else { return };
            // Scales and biases are not decayed.
            let rate = rate * times;
            let shrink = if w.rank() > 1 && decays { 1.0 - rate * decay } else { 1.0 };
            first.resize(g.len(), 0.0);
            let elements = w.data_mut().iter_mut().zip(g.data()).zip(first.iter_mut());
            match method {
                Method::AdamW => {
                    second.resize(g.len(), 0.0);
                    for (((w, &g), m), v) in elements.zip(second.iter_mut()) {
                        *m = BETAS.0 * *m + (1.0 - BETAS.0) * g;
                        *v = BETAS.1 * *v + (1.0 - BETAS.1) * g * g;
                        *w = *w * shrink - rate * (*m / correction.0) / ((*v / correction.1).sqrt() + EPSILON);
                    }
                }
                Method::Sgd => {
                    for ((w, &g), m) in elements {
                        *m = MOMENTUM * *m + g;
                        *w = *w * shrink - rate * (g + MOMENTUM * *m);
                    }
                }
            }
            w.data_mut().iter_mut().zip(zeros).filter(|(_, zero)| **zero).for_each(|(w, _)| *w = 0.0);
        });
    }
}

/// Scales the gradients so that their joint length is at most `most`; returns the length that they had.
pub(super) fn clip(gradients: &mut [Option<Array<f32>>], most: f64) -> f64 {
    let square = |g: &Array<f32>| g.data().iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
    let length = gradients.iter().flatten().map(square).sum::<f64>().sqrt();
    if length > most {
        let by = (most / length) as f32;
        gradients.iter_mut().flatten().for_each(|g| *g = g.map(|x| x * by));
    }
    length
}

/// The learning rate at a point of the run (0 to 1), as a share of the largest: linear warm-up, then a cosine to 1%
/// (Loshchilov and Hutter 2017, "SGDR").
pub(super) fn rate_at(point: f64, warm_up: f64) -> f64 {
    const LAST: f64 = 0.01;
    if point < warm_up {
        return (point / warm_up).max(LAST);
    }
    let rest = ((point - warm_up) / (1.0 - warm_up).max(1e-9)).clamp(0.0, 1.0);
    LAST + (1.0 - LAST) * 0.5 * (1.0 + (std::f64::consts::PI * rest).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_and_falls() {
        assert!(rate_at(0.0, 0.1) < 0.02 && (rate_at(0.1, 0.1) - 1.0).abs() < 1e-9);
        assert!((rate_at(1.0, 0.1) - 0.01).abs() < 1e-9 && rate_at(0.5, 0.1) < rate_at(0.2, 0.1));
        assert_eq!(rate_at(0.0, 0.0), 1.0);
    }

    #[test]
    fn clipping_keeps_the_direction() {
        let mut g = [Some(Array::new(&[2], vec![3.0f32, 0.0])), None, Some(Array::new(&[1], vec![4.0]))];
        assert_eq!(clip(&mut g, 1.0), 5.0);
        let data: Vec<f32> = g.iter().flatten().flat_map(|g| g.data().to_vec()).collect();
        assert!((data[0] - 0.6).abs() < 1e-6 && (data[2] - 0.8).abs() < 1e-6);
        assert!((clip(&mut g, 2.0) - 1.0).abs() < 1e-6);
    }
}
