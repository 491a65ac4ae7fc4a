//! What the teacher makes of a feed.

use super::distill::with_outputs;
use super::features::Feature;
use super::network::{Network, NetworkOptions};
use super::parameters::Parameters;
use crate::error::{Context, Result};
use crate::io::Feed;
use crate::ir::Model;
use crate::math::Array;
use crate::runtime::{Runner, RunnerOptions};

/// A teacher ready to run: by the kernels that train the student where they have a rule for every operator and compute what
/// tract does, which takes a fraction of the time; otherwise by tract.
pub(super) struct Executor {
    runner: Runner,
    own: Option<(Network<f32>, Parameters<f32>)>,
}

/// Relative L2 distance up to which results are the same but for rounding.
const SAME: f64 = 1e-5;

impl Executor {
    /// Prepares `teacher`, whose `features` come after its graph outputs; `trial` is what both ways are compared on.
    pub fn new(teacher: &Model, features: &[Feature], trial: &Feed) -> Result<Self> {
        let observe = features.iter().map(|f| f.name.clone()).collect();
        let runner = Runner::new(teacher, &RunnerOptions { observe, ..RunnerOptions::default() });
        let mut executor = Self { runner: runner.context(|| "teacher")?, own: None };
        let want = executor.run(trial)?;
        executor.own = own(teacher, features, trial).filter(|own| {
            let found = forward(own, trial);
            found.is_ok_and(|f| f.len() == want.len() && f.iter().zip(&want).all(|(a, b)| same(a, b)))
        });
        Ok(executor)
    }

    /// The graph outputs, then the features.
    pub fn run(&self, feed: &Feed) -> Result<Vec<Array<f32>>> {
        if let Some(own) = &self.own {
            return forward(own, feed).context(|| "teacher");
        }
        let outputs = self.runner.run(feed).context(|| "teacher")?;
        outputs.iter().map(|y| Ok(Array::new(y.shape(), y.as_f32()?.into_owned()))).collect()
    }
}

/// The teacher over our own kernels; `None` where they do not have all that it takes.
fn own(teacher: &Model, features: &[Feature], trial: &Feed) -> Option<(Network<f32>, Parameters<f32>)> {
    let nothing = NetworkOptions { parameters: Some(vec![]), observe: vec![] };
    let network = Network::new(&with_outputs(teacher, features), &nothing).ok()?;
    let parameters = network.parameters().ok()?;
    network.has_all_rules(trial).ok()?.then_some((network, parameters))
}

fn forward((network, parameters): &(Network<f32>, Parameters<f32>), feed: &Feed) -> Result<Vec<Array<f32>>> {
    let tape = network.forward(parameters, feed, false)?;
    Ok(tape.outputs()?.into_iter().cloned().collect())
}

fn same(a: &Array<f32>, b: &Array<f32>) -> bool {
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        a.data().iter().zip(b.data()).map(|(&a, &b)| f(f64::from(a), f64::from(b))).sum()
    };
    a.dims() == b.dims() && sum(&|a, b| (a - b).powi(2)) <= SAME.powi(2) * sum(&|_, b| b * b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Dataset, load};
    use crate::recover::Samples;
    use std::path::Path;

    fn executor(name: &str) -> (Executor, Feed) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/digits").join(name);
        let model = load(&path).unwrap();
        let data = Dataset::random(&model.graph, 4, 1).unwrap();
        let feed = Samples::read(&data).unwrap().joined(&[0, 1, 2]).unwrap();
        (Executor::new(&model, &[], &feed).unwrap(), feed)
    }

    #[test]
    fn both_ways_compute_the_same() {
        for name in ["digits_resnet.onnx", "digits_mobile.onnx", "digits_vit.onnx", "digits_gru.onnx"] {
            let (executor, feed) = executor(name);
            assert!(executor.own.is_some(), "{name}");
            let found = executor.run(&feed).unwrap();
            let by_tract = Executor { own: None, ..executor }.run(&feed).unwrap();
            assert!(found.len() == by_tract.len() && found.iter().zip(&by_tract).all(|(a, b)| same(a, b)), "{name}");
        }
    }

    #[test]
    fn what_differs_or_is_no_number_is_not_the_same() {
        let of = |x: &[f32]| Array::new(&[x.len()], x.to_vec());
        assert!(same(&of(&[1.0, 0.0]), &of(&[1.0, 0.0])));
        assert!(!same(&of(&[1.0, 1e-4]), &of(&[1.0, 0.0])));
        assert!(!same(&of(&[1.0, f32::NAN]), &of(&[1.0, 0.0])));
        assert!(!same(&of(&[1.0]), &of(&[1.0, 0.0])));
    }
}
