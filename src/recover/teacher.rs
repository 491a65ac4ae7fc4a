//! What the teacher makes of a feed.

use super::distill::with_outputs;
use super::features::Feature;
use super::loss::relative_error;
use super::network::{Network, NetworkOptions};
use super::parameters::Parameters;
use crate::error::{Context, Result};
use crate::io::Feed;
use crate::ir::Model;
use crate::math::Array;
use crate::runtime::{Runner, RunnerOptions};

/// A teacher ready to run.
pub(super) enum Executor {
    Tract(Runner),
    /// By the kernels that train the student.
    Own(Box<Network<f32>>, Parameters<f32>),
}

/// Relative L2 distance up to which results are the same but for rounding.
const SAME: f64 = 1e-5;

impl Executor {
    /// Prepares `teacher`, whose `features` come after its graph outputs: for our own kernels, which take a fraction of the
    /// time, where they have a rule for every operator and compute on `trial` what tract does; otherwise for tract.
    pub fn new(teacher: &Model, features: &[Feature], trial: &Feed) -> Result<Self> {
        let tract = Self::by_tract(teacher, features)?;
        let want = tract.run(trial)?;
        let agrees = |own: &Self| {
            own.run(trial).is_ok_and(|f| f.len() == want.len() && f.iter().zip(&want).all(|(a, b)| same(a, b)))
        };
        Ok(Self::own(teacher, features, trial).filter(agrees).unwrap_or(tract))
    }

    fn by_tract(teacher: &Model, features: &[Feature]) -> Result<Self> {
        let observe = features.iter().map(|f| f.name.clone()).collect();
        let runner = Runner::new(teacher, &RunnerOptions { observe, ..RunnerOptions::default() });
        Ok(Self::Tract(runner.context(|| "teacher")?))
    }

    /// `None` where our kernels do not have all that the teacher takes.
    fn own(teacher: &Model, features: &[Feature], trial: &Feed) -> Option<Self> {
        let no_gradients = NetworkOptions { parameters: Some(vec![]), observe: vec![] };
        let network = Network::new(&with_outputs(teacher, features), &no_gradients).ok()?;
        let parameters = network.parameters().ok()?;
        network.has_all_rules(trial).ok()?.then(|| Self::Own(Box::new(network), parameters))
    }

    /// The graph outputs, then the features.
    pub fn run(&self, feed: &Feed) -> Result<Vec<Array<f32>>> {
        match self {
            Self::Tract(runner) => {
                let outputs = runner.run(feed).context(|| "teacher")?;
                outputs.iter().map(|y| Ok(Array::new(y.shape(), y.as_f32()?.into_owned()))).collect()
            }
            Self::Own(network, parameters) => {
                let tape = network.forward(parameters, feed, false).context(|| "teacher")?;
                Ok(tape.outputs()?.into_iter().cloned().collect())
            }
        }
    }
}

fn same(a: &Array<f32>, b: &Array<f32>) -> bool {
    relative_error(a, b).is_ok_and(|off| off.value <= SAME.powi(2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Dataset, load};
    use crate::recover::Samples;
    use std::path::Path;

    #[test]
    fn both_ways_compute_the_same() {
        for name in ["digits_resnet.onnx", "digits_mobile.onnx", "digits_vit.onnx", "digits_gru.onnx"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/digits").join(name);
            let model = load(&path).unwrap();
            let data = Dataset::random(&model.graph, 4, 1).unwrap();
            let feed = Samples::read(&data).unwrap().joined(&[0, 1, 2]).unwrap();
            let executor = Executor::new(&model, &[], &feed).unwrap();
            assert!(matches!(executor, Executor::Own(..)), "{name}");
            let found = executor.run(&feed).unwrap();
            let want = Executor::by_tract(&model, &[]).unwrap().run(&feed).unwrap();
            assert!(found.len() == want.len() && found.iter().zip(&want).all(|(a, b)| same(a, b)), "{name}");
        }
    }

    /// Round has no backward rule, so no kernel here.
    #[test]
    fn what_has_no_rule_is_left_to_tract() {
        let text = "g (float[N, 2] x) => (float[N, 2] y) { y = Round(x) }";
        let model = crate::io::text::parse_graph(text, 17).unwrap();
        let data = Dataset::random(&model.graph, 2, 1).unwrap();
        let feed = Samples::read(&data).unwrap().feed(0).clone();
        assert!(matches!(Executor::new(&model, &[], &feed).unwrap(), Executor::Tract(_)));
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
