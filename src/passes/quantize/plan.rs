//! The plan: which nodes compute in integers, with which scale and zero point for each value. Both spellings write it.

use super::groups::ScaleGroups;
use super::options::{Eight, QuantizeOptions};
use super::structure::Structure;
use crate::error::Result;
use crate::ir::{Graph, Model, ValueId};
use std::collections::HashMap;

/// Scale and zero point of a value: `x = scale * (q - zero_point)`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Quantization {
    /// Step.
    pub scale: f32,
    /// The integer that stands for zero.
    pub zero_point: i32,
    /// Type.
    pub eight: Eight,
}

impl Quantization {
    /// Smallest and largest real value that has a code.
    pub fn range(&self) -> (f32, f32) {
        let (qmin, qmax) = self.eight.bounds();
        let real = |q: i32| self.scale * (q - self.zero_point) as f32;
        (real(qmin), real(qmax))
    }

    /// The code of a real value, saturated.
    pub fn code(&self, x: f32) -> i32 {
        let (qmin, qmax) = self.eight.bounds();
        ((x / self.scale).round_ties_even() as i32).saturating_add(self.zero_point).clamp(qmin, qmax)
    }
}

/// What to write.
pub struct Plan {
    /// Which nodes.
    pub structure: Structure,
    /// Which values share a scale.
    pub groups: ScaleGroups,
    /// Options it was made with.
    pub options: QuantizeOptions,
    quantizations: HashMap<usize, Quantization>,
}

impl Plan {
    /// Structure and groups, without scales: enough to know what to observe.
    ///
    /// # Errors
    /// As [`Structure::decide`].
    pub fn draft(model: &Model, options: &QuantizeOptions) -> Result<Self> {
        let structure = Structure::decide(model, options)?;
        let groups = ScaleGroups::of(&model.graph, &structure, options);
        Ok(Self { structure, groups, options: options.clone(), quantizations: HashMap::new() })
    }

    /// Names of the values whose ranges are needed.
    pub fn observed<'a>(&'a self, graph: &'a Graph) -> Vec<&'a str> {
        self.groups.observed().map(|v| graph.name(v)).collect()
    }

    /// Gives every group its scale and zero point. `quantize` makes them from a group's source names.
    ///
    /// # Errors
    /// Those of `quantize`, for example a value that was not observed.
    pub fn set_scales(&mut self, graph: &Graph, quantize: impl Fn(&[&str]) -> Result<Quantization>) -> Result<()> {
        for group in 0..self.groups.len() {
            let names: Vec<&str> = self.groups.sources(group).iter().map(|&v| graph.name(v)).collect();
            self.quantizations.insert(group, quantize(&names)?);
        }
        Ok(())
    }

    /// Scale and zero point of a value.
    pub fn quantization(&self, v: ValueId) -> Option<Quantization> {
        self.quantizations.get(&self.groups.group(v)?).copied()
    }
}
