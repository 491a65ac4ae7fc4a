//! Which nodes the options mean: patterns over names and operators.

use super::options::{Precision, QuantizeOptions};
use crate::error::{Error, Result};
use crate::ir::{Graph, Node};
use globset::{Glob, GlobSet, GlobSetBuilder};

/// `--include` and `--exclude`, compiled.
pub struct Selection {
    include: Option<Patterns>,
    exclude: Option<Patterns>,
    nodes: Option<Patterns>,
    precisions: Vec<Precision>,
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
        let texts: Vec<String> = options.nodes.keys().cloned().collect();
        let precisions = options.nodes.values().copied().collect();
        Ok(Self { nodes: Patterns::new(&texts)?, precisions, ..Self::of(&options.include, &options.exclude)? })
    }

    /// Compiles lists of patterns.
    ///
    /// # Errors
    /// A pattern that is not a valid glob.
    pub fn of(include: &[String], exclude: &[String]) -> Result<Self> {
        let (include, exclude) = (Patterns::new(include)?, Patterns::new(exclude)?);
        Ok(Self { include, exclude, nodes: None, precisions: vec![] })
    }

    /// The precision that the caller wants for this node in particular, if any.
    pub fn precision(&self, node: &Node) -> Option<Precision> {
        let patterns = self.nodes.as_ref()?;
        let rank = |k: &usize| {
            let text = &patterns.texts[*k];
            let kind = if **text == *node.name { 2 } else { u8::from(**text != *node.op.op_type) };
            (kind, text.len())
        };
        patterns.matching(node).max_by_key(rank).map(|k| self.precisions[k])
    }

    /// Whether --include and --exclude leave the node to be quantized.
    pub fn wants(&self, node: &Node) -> bool {
        let excluded = self.exclude.as_ref().is_some_and(|p| p.matches(node));
        !excluded && self.include.as_ref().is_none_or(|p| p.matches(node))
    }

    /// Whether the caller asked for this node by --include.
    pub fn includes(&self, node: &Node) -> bool {
        self.include.as_ref().is_some_and(|p| p.matches(node))
    }

    /// Why the caller does not want this node quantized, if so.
    pub fn refuses(&self, node: &Node) -> Option<&'static str> {
        if self.exclude.as_ref().is_some_and(|p| p.matches(node)) {
            return Some("excluded by --exclude");
        }
        if self.include.as_ref().is_some_and(|p| !p.matches(node)) {
            return Some("not among --include");
        }
        match self.precision(node) {
            Some(Precision::F32) => Some("kept in f32 by the options for nodes"),
            Some(Precision::F16) => Some("its weights are stored in f16 by the options for nodes"),
            Some(Precision::W8) => Some("only its weights are quantized, by the options for nodes"),
            Some(Precision::Sixteen | Precision::Eight | Precision::Four) | None => None,
        }
    }

    /// Refuses a pattern that matches no node of the graph, which is most likely a typing error.
    ///
    /// # Errors
    /// The first such pattern.
    pub fn check(&self, graph: &Graph) -> Result<()> {
        let mut nodes: Vec<&Node> = vec![];
        collect(graph, &mut nodes);
        match self.unmatched(nodes.into_iter()) {
            Some(text) => Err(Error::usage(format!("pattern \"{text}\" matches no node name and no operator type"))),
            None => Ok(()),
        }
    }

    fn unmatched<'a>(&self, nodes: impl Iterator<Item = &'a Node> + Clone) -> Option<&str> {
        let lists = [&self.include, &self.exclude, &self.nodes];
        let mut all = lists.into_iter().flatten().flat_map(|p| p.texts.iter().enumerate().map(move |(k, t)| (p, k, t)));
        all.find(|(p, k, _)| !nodes.clone().any(|n| p.matching(n).any(|m| m == *k))).map(|(_, _, text)| text.as_str())
    }
}

/// The nodes of a graph and of the bodies in it.
fn collect<'a>(graph: &'a Graph, nodes: &mut Vec<&'a Node>) {
    for node in graph.nodes().map(|n| graph.node(n)) {
        nodes.push(node);
        node.bodies().for_each(|body| collect(body, nodes));
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
