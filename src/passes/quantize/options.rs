//! What the caller may choose.

use crate::error::{Error, Result};
use crate::ir::{DType, Graph, Node};
use globset::{Glob, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

/// Settings of static quantization. Every field has the default that the command line has.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct QuantizeOptions {
    /// How the plan is spelled.
    pub format: Format,
    /// Which operators may be written.
    pub runtime: Runtime,
    /// How much of the graph is quantized.
    pub scope: Scope,
    /// Type of activations.
    pub activations: Eight,
    /// Type of weights.
    pub weights: Eight,
    /// One scale per output channel of a weight instead of one for the whole tensor.
    pub per_channel: bool,
    /// Zero point of activations in the middle of the type.
    pub symmetric_activations: bool,
    /// Zero point of weights in the middle of the type.
    pub symmetric_weights: bool,
    /// Let biases take up what rounding the weights shifts mean outputs by.
    pub bias_correction: bool,
    /// Only nodes that match one of these (name, glob over names, or operator type); empty = all.
    pub include: Vec<String>,
    /// No node that matches one of these.
    pub exclude: Vec<String>,
}

impl Default for QuantizeOptions {
    fn default() -> Self {
        Self {
            format: Format::Qlinear,
            runtime: Runtime::Portable,
            scope: Scope::Full,
            activations: Eight::U8,
            weights: Eight::S8,
            per_channel: true,
            symmetric_activations: false,
            symmetric_weights: true,
            bias_correction: true,
            include: vec![],
            exclude: vec![],
        }
    }
}

/// Spelling of a quantized graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// QLinearConv, QLinearMatMul and 8-bit tensors between them.
    Qlinear,
    /// Float operators between QuantizeLinear and DequantizeLinear, which runtimes fuse.
    Qdq,
}

/// Which operators may be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Operators of the ONNX standard only.
    Portable,
    /// ONNX Runtime's `com.microsoft` operators too.
    Ort,
}

/// How much is quantized.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Linear layers, what runs between them, and their outputs.
    Full,
    /// Inputs and weights of linear layers only; their outputs stay float.
    Inputs,
}

/// An 8-bit type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Eight {
    /// 0 to 255.
    U8,
    /// -128 to 127.
    S8,
}

impl Eight {
    /// Element type.
    pub fn dtype(self) -> DType {
        match self {
            Eight::U8 => DType::U8,
            Eight::S8 => DType::I8,
        }
    }

    /// Smallest and largest value.
    pub fn bounds(self) -> (i32, i32) {
        match self {
            Eight::U8 => (0, 255),
            Eight::S8 => (-128, 127),
        }
    }
}

impl QuantizeOptions {
    /// Checks combinations that no runtime can execute.
    ///
    /// # Errors
    /// What to change.
    pub fn check(&self) -> Result<()> {
        if self.scope == Scope::Inputs && self.format == Format::Qlinear {
            return Err(Error::usage(
                "scope \"inputs\" leaves the outputs of layers in float, which QLinear operators cannot: use --format qdq",
            ));
        }
        if self.activations == Eight::S8 && self.weights == Eight::U8 {
            return Err(Error::usage(
                "no runtime multiplies signed activations with unsigned weights: use s8 weights or u8 activations",
            ));
        }
        if self.per_channel && !self.symmetric_weights {
            return Err(Error::usage(
                "per-channel weights must be symmetric (runtimes want one zero point for all channels): use per-tensor weights or symmetric ones",
            ));
        }
        Ok(())
    }
}

/// `--include` and `--exclude`, compiled.
pub struct Selection {
    include: Option<Patterns>,
    exclude: Option<Patterns>,
}

struct Patterns {
    texts: Vec<String>,
    globs: GlobSet,
}

impl Selection {
    /// Compiles the patterns of the options.
    ///
    /// # Errors
    /// A pattern that is not a valid glob.
    pub fn new(options: &QuantizeOptions) -> Result<Self> {
        Self::of(&options.include, &options.exclude)
    }

    /// Compiles lists of patterns.
    ///
    /// # Errors
    /// A pattern that is not a valid glob.
    pub fn of(include: &[String], exclude: &[String]) -> Result<Self> {
        Ok(Self { include: Patterns::new(include)?, exclude: Patterns::new(exclude)? })
    }

    /// Why the caller does not want this node quantized, if so.
    pub fn refuses(&self, node: &Node) -> Option<&'static str> {
        if self.exclude.as_ref().is_some_and(|p| p.matches(node)) {
            return Some("excluded by --exclude");
        }
        let left_out = self.include.as_ref().is_some_and(|p| !p.matches(node));
        left_out.then_some("not among --include")
    }

    /// Refuses a pattern that matches no node of the graph, which is most likely a typing error.
    ///
    /// # Errors
    /// The first such pattern.
    pub fn check(&self, graph: &Graph) -> Result<()> {
        let nodes: Vec<&Node> = graph.nodes().map(|n| graph.node(n)).collect();
        match self.unmatched(nodes.into_iter()) {
            Some(text) => Err(Error::usage(format!("pattern \"{text}\" matches no node name and no operator type"))),
            None => Ok(()),
        }
    }

    fn unmatched<'a>(&self, nodes: impl Iterator<Item = &'a Node> + Clone) -> Option<&str> {
        let lists = [&self.include, &self.exclude];
        let mut all = lists.into_iter().flatten().flat_map(|p| p.texts.iter().enumerate().map(move |(k, t)| (p, k, t)));
        all.find(|(p, k, _)| !nodes.clone().any(|n| p.matching(n).any(|m| m == *k))).map(|(_, _, text)| text.as_str())
    }
}

impl Patterns {
    fn new(texts: &[String]) -> Result<Option<Self>> {
        if texts.is_empty() {
            return Ok(None);
        }
        let mut builder = GlobSetBuilder::new();
        for text in texts {
            // A name is taken literally too, so that names with glob characters can be given.
            let glob = Glob::new(text).map_err(|e| Error::usage(format!("pattern \"{text}\": {e}")))?;
            builder.add(glob);
        }
        let globs = builder.build().map_err(|e| Error::usage(format!("patterns: {e}")))?;
        Ok(Some(Self { texts: texts.to_vec(), globs }))
    }

    /// Positions of the patterns that match the node.
    fn matching<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = usize> + 'a {
        let by_glob = self.globs.matches(&*node.name);
        let literal = |t: &String| **t == *node.name || **t == *node.op.op_type;
        (0..self.texts.len()).filter(move |k| by_glob.contains(k) || literal(&self.texts[*k]))
    }

    fn matches(&self, node: &Node) -> bool {
        self.matching(node).next().is_some()
    }
}
