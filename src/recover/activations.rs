//! What values inside a model are like, channel by channel, and how much of an error in them reaches its outputs.

use super::random::Random;
use super::samples::Samples;
use super::tape::{Seed, Tape};
use super::{Network, NetworkOptions};
use crate::calibrate::ChannelStatistics;
use crate::error::{Error, Result};
use crate::io::Dataset;
use crate::ir::Model;
use crate::math::Array;
use rayon::prelude::*;

/// Random directions per feed. Each is one way back through the model.
const DIRECTIONS: usize = 4;

/// Samples whose gradients are held at once.
const BLOCK: usize = 8;

/// Statistics of values of `model` over `data`, given by name and the axis of their channels, in the same order.
///
/// Of the Jacobian `J` of an output by a value, the gain needs `sum of J^2` per channel: the mean of `(r J)^2` over vectors
/// `r` of random signs, as Hutchinson (1990) estimates a trace. Each output counts relative to its own mean square.
///
/// # Errors
/// Operators that nobody can compute, a value that no gradient reaches, NaN.
pub fn channel_statistics(model: &Model, data: &Dataset, values: &[(String, usize)]) -> Result<Vec<ChannelStatistics>> {
    let observe = values.iter().map(|(name, _)| name.clone()).collect();
    let network = Network::<f32>::new(model, &NetworkOptions { parameters: Some(vec![]), observe })?;
    let (samples, parameters) = (Samples::read(data)?, network.parameters()?);
    let one = |&i: &usize| -> Result<Vec<ChannelStatistics>> {
        let tape = network.forward(&parameters, samples.feed(i), false)?;
        let mut found: Vec<ChannelStatistics> = values
            .iter()
            .enumerate()
            .map(|(k, (name, axis))| of_value(tape.observed(k).ok_or_else(|| unreached(name))?, name, *axis))
            .collect::<Result<_>>()?;
        let mut random = Random::new(i as u64);
        for _ in 0..DIRECTIONS {
            let gradients = tape.backward(seeds(&tape, &mut random)?)?.observed;
            for ((gradient, statistics), (name, axis)) in gradients.iter().zip(&mut found).zip(values) {
                let gradient = gradient.as_ref().ok_or_else(|| unreached(name))?;
                let squares = per_channel(gradient, *axis, 0.0, |sum, g| sum + f64::from(g) * f64::from(g));
                statistics.gain.iter_mut().zip(squares).for_each(|(s, g)| *s += g / DIRECTIONS as f64);
            }
        }
        Ok(found)
    };
    let mut total: Option<Vec<ChannelStatistics>> = None;
    let indices: Vec<usize> = (0..samples.len()).collect();
    for block in indices.chunks(BLOCK) {
        let found: Result<Vec<_>> = block.par_iter().map(one).collect();
        for more in found? {
            match &mut total {
                Some(total) => total.iter_mut().zip(&more).for_each(|(t, m)| t.merge(m)),
                None => total = Some(more),
            }
        }
    }
    let mut total = total.ok_or_else(|| Error::data("there are no samples"))?;
    total.iter_mut().for_each(|t| t.divide(samples.len() as f64));
    match total.iter().all(ChannelStatistics::is_finite) {
        true => Ok(total),
        false => Err(Error::data("a gradient is NaN or infinite")),
    }
}

fn unreached(name: &str) -> Error {
    Error::unsupported(format!("no gradient of the outputs reaches \"{name}\""))
}

fn of_value(x: &Array<f32>, name: &str, axis: usize) -> Result<ChannelStatistics> {
    let channels = *x.dims().get(axis).ok_or_else(|| Error::data(format!("\"{name}\" has no axis {axis}")))?;
    let count = (x.len() / channels.max(1)).max(1) as f64;
    let squares = per_channel(x, axis, 0.0, |sum, x| sum + f64::from(x) * f64::from(x));
    Ok(ChannelStatistics {
        low: per_channel(x, axis, 0f32, f32::min),
        high: per_channel(x, axis, 0f32, f32::max),
        energy: squares.into_iter().map(|s| s / count).collect(),
        gain: vec![0.0; channels],
    })
}

fn per_channel<A: Copy>(x: &Array<f32>, axis: usize, start: A, add: impl Fn(A, f32) -> A) -> Vec<A> {
    let channels = x.dims().get(axis).copied().unwrap_or(0);
    let inner: usize = x.dims().iter().skip(axis + 1).product();
    let mut sums = vec![start; channels];
    for (k, part) in x.data().chunks(inner.max(1)).enumerate() {
        let sum = &mut sums[k % channels];
        *sum = part.iter().fold(*sum, |sum, &x| add(sum, x));
    }
    sums
}

fn seeds(tape: &Tape<f32>, random: &mut Random) -> Result<Vec<Seed<f32>>> {
    let outputs = tape.outputs()?;
    let seed = |(output, y): (usize, &Array<f32>)| {
        let squares: f64 = y.data().iter().map(|&y| f64::from(y) * f64::from(y)).sum();
        let one = if squares > 0.0 { (1.0 / squares.sqrt()) as f32 } else { 0.0 };
        let signs = (0..y.len()).map(|_| if random.next() & 1 == 1 { one } else { -one }).collect();
        Seed { output, gradient: Array::new(y.dims(), signs) }
    };
    Ok(outputs.into_iter().enumerate().map(seed).collect())
}
