//! Which nodes compute in another float type than the rest of the graph, and why.

use crate::analysis::shapes::Contexts;
use crate::error::{Error, Result};
use crate::ir::{DType, Graph, Node, NodeId, ValueId};
use crate::ops;
use crate::ops::spec::InferContext;
use globset::{Glob, GlobSet, GlobSetBuilder};
use serde::Serialize;
use std::collections::BTreeMap;

/// Smallest and largest element that a value had.
pub type FloatRange = (f32, f32);

/// Largest finite f16.
const MOST: f32 = 65504.0;

/// A value whose largest magnitude is less is subnormal in f16 for the most part: below 2^-14 its digits dwindle.
const LEAST: f32 = 1.0 / 4096.0;

/// Attributes that name an element type, of the output.
const TYPES: [&str; 4] = ["to", "dtype", "output_datatype", "output_dtype"];

/// A node that stays in f32.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kept {
    /// Name; may be empty.
    pub name: String,
    /// Operator.
    pub op: String,
    /// Why.
    pub reason: String,
}

/// What decides.
pub struct Keep {
    /// Observed ranges by value name; empty where there were no data.
    pub ranges: BTreeMap<String, FloatRange>,
    exclude: GlobSet,
    literal: Vec<String>,
}

impl Keep {
    /// With the nodes that the caller wants in f32: names, globs over names, or operator types.
    ///
    /// # Errors
    /// A pattern that is not a valid glob, or that matches nothing in the graph.
    pub fn new(graph: &Graph, exclude: &[String], ranges: BTreeMap<String, FloatRange>) -> Result<Self> {
        let mut builder = GlobSetBuilder::new();
        for text in exclude {
            let glob = Glob::new(text).map_err(|e| Error::usage(format!("pattern \"{text}\": {e}")))?;
            let matcher = glob.compile_matcher();
            let fits = |n: &Node| matcher.is_match(&*n.name) || **text == *n.name || **text == *n.op.op_type;
            if !graph.nodes().any(|id| fits(graph.node(id))) {
                return Err(Error::usage(format!("pattern \"{text}\" matches no node name and no operator type")));
            }
            builder.add(glob);
        }
        let exclude_set = builder.build().map_err(|e| Error::usage(format!("patterns: {e}")))?;
        Ok(Self { ranges, exclude: exclude_set, literal: exclude.to_vec() })
    }

    /// Why a node that computes in f32 must not compute in f16, if so.
    pub fn reason(&self, graph: &Graph, contexts: &Contexts, id: NodeId) -> Option<String> {
        let node = graph.node(id);
        let text = |s: &str| Some(s.to_string());
        if node.bodies().next().is_some() {
            return text("has a body");
        }
        let Some(spec) = ops::spec(&node.op) else { return text("no facts about this operator") };
        let cx: InferContext = contexts.of(id);
        if !spec.allows_f16(&cx) {
            return text("the standard has no f16 for it (in this operator set)");
        }
        if self.excluded(node) {
            return text("excluded by --exclude");
        }
        if TYPES.iter().any(|name| node.int(name) == Some(DType::F32.onnx().into())) {
            return text("an attribute says that it makes f32");
        }
        let slots = spec.f32_slots();
        let inputs = graph.node_inputs(id).into_iter().enumerate().filter(|(k, _)| !slots.contains(k));
        let float = |v: &ValueId| graph.ty(*v).and_then(|t| t.elem()) == Some(DType::F32);
        let inputs: Vec<ValueId> = inputs.filter_map(|(_, v)| v).filter(float).collect();
        if inputs.is_empty() {
            return text("takes no float");
        }
        let outputs = graph.node_outputs(id).into_iter().flatten().filter(float);
        inputs.iter().copied().chain(outputs).find_map(|v| self.out_of_range(graph, v))
    }

    fn excluded(&self, node: &Node) -> bool {
        self.exclude.is_match(&*node.name) || self.literal.iter().any(|t| **t == *node.name || **t == *node.op.op_type)
    }

    fn out_of_range(&self, graph: &Graph, v: ValueId) -> Option<String> {
        let name = graph.name(v);
        let (low, high) = match graph.constant(v) {
            Some(t) => {
                let finite = t.to_f32().ok()?.into_iter().filter(|x| x.is_finite());
                finite.fold((0f32, 0f32), |(low, high), x| (low.min(x), high.max(x)))
            }
            None => *self.ranges.get(name)?,
        };
        let most = high.max(-low);
        if most > MOST {
            return Some(format!("\"{name}\" reaches {most:.3e}, beyond f16's 65504"));
        }
        (most > 0.0 && most < LEAST).then(|| format!("\"{name}\" stays below {most:.1e}: mostly subnormal in f16"))
    }
}

/// Whether the model computes with a value of this type, in a body too.
pub fn has_values_of(graph: &Graph, dtype: DType) -> bool {
    let of = |v: ValueId| graph.ty(v).and_then(|t| t.elem()) == Some(dtype);
    graph.values().any(of) || graph.nodes().any(|n| graph.node(n).bodies().any(|b| has_values_of(b, dtype)))
}
