//! Model-local functions become the nodes that they stand for.

mod bind;
mod size;
mod splice;

use crate::analysis::opset;
use crate::error::{Context, Error, Result};
use crate::io::model_from_proto;
use crate::ir::{Graph, Model, Node, NodeId, OpId, canonical_domain};
use crate::proto;
use size::Contents;
use std::collections::{HashMap, HashSet};

/// Functions that call each other, and bodies, inside each other at most.
const MAX_DEPTH: usize = 128;

/// Nodes and calls that inlining may make of one model: functions that call others twice grow as powers of two.
const MAX_NODES: usize = 250_000;

/// The domain that calls in the default domain have while the operators around them are upgraded.
const HIDDEN: &str = "sardonyx.call";

/// Replaces every call of a model-local function, in bodies and in other functions too, by a copy of its nodes. Returns
/// the number of calls; afterwards the model has no functions. Values of the model keep their names.
///
/// A function hides an operator of the same name. Where a function imports an older operator set than the model, its
/// copies are upgraded; where it imports a newer one, the model is.
///
/// Specification: IR, section "Functions"; `FunctionProto` in onnx.proto.
///
/// # Errors
/// Functions that call themselves, calls that do not fit their function, operator sets that cannot be brought together,
/// and functions that grow beyond all bounds: all by name.
pub fn inline_functions(model: &mut Model) -> Result<usize> {
    if model.functions.is_empty() {
        return Ok(0);
    }
    let functions = std::mem::take(&mut model.functions);
    let result = Inliner::new(&functions).and_then(|mut inliner| inliner.inline(model));
    if result.is_err() {
        model.functions = functions;
    }
    result
}

/// One function, as a model of its own: its graph's inputs and outputs are the function's.
struct Template {
    model: Model,
    /// Defaults of attributes.
    defaults: Vec<crate::ir::Attribute>,
}

struct Inliner<'f> {
    protos: HashMap<OpId, &'f proto::FunctionProto>,
    templates: HashMap<OpId, Template>,
    calls: usize,
}

impl<'f> Inliner<'f> {
    fn new(functions: &'f [proto::FunctionProto]) -> Result<Self> {
        let mut protos = HashMap::new();
        for f in functions {
            let op = OpId {
                domain: canonical_domain(f.domain()).into(),
                op_type: f.name().into(),
                overload: f.overload().into(),
            };
            if protos.contains_key(&op) {
                return Err(Error::invalid(format!("function {op} is defined twice")));
            }
            protos.insert(op, f);
        }
        Ok(Self { protos, templates: HashMap::new(), calls: 0 })
    }

    fn inline(&mut self, model: &mut Model) -> Result<usize> {
        let mut copy = model.clone();
        let used = self.reachable(&copy.graph)?;
        let newest = used.iter().filter_map(|op| self.templates.get(op)?.model.opset("")).max();
        if let Some(newest) = newest.filter(|&v| v > copy.opset("").unwrap_or(v)) {
            self.upgrade(&mut copy, newest).context(|| "for its functions")?;
        }
        for op in &used {
            let Some(template) = self.templates.get(op) else { continue };
            for import in &template.model.opsets {
                copy.import(import.domain(), import.version());
            }
        }
        let mut graph = std::mem::take(&mut copy.graph);
        self.expand(&mut graph, &copy, 0)?;
        graph.eliminate_dead()?;
        copy.graph = graph;
        *model = copy;
        Ok(self.calls)
    }

    /// Every function that the graph calls, directly or not, in the order found; their templates are made.
    fn reachable(&mut self, graph: &Graph) -> Result<Vec<OpId>> {
        let mut counts = HashMap::new();
        let mut main = Contents::default();
        self.count(graph, &mut main);
        let mut found: Vec<OpId> = vec![];
        let mut seen = HashSet::new();
        main.add_new_to(&mut found, &mut seen);
        let mut next = 0;
        while let Some(op) = found.get(next).cloned() {
            next += 1;
            let Some(proto) = self.protos.get(&op) else { continue };
            let template = Template::new(proto).context(|| format!("function {op}"))?;
            let mut contents = Contents::default();
            self.count(&template.model.graph, &mut contents);
            contents.add_new_to(&mut found, &mut seen);
            counts.insert(op.clone(), contents);
            self.templates.insert(op, template);
        }
        size::check(&main, &counts, MAX_NODES)?;
        Ok(found)
    }

    fn count(&self, graph: &Graph, contents: &mut Contents) {
        for id in graph.nodes() {
            let node = graph.node(id);
            contents.nodes += 1;
            if self.protos.contains_key(&node.op) {
                contents.calls.push(node.op.clone());
            }
            node.bodies().for_each(|b| self.count(b, contents));
        }
    }

    /// Inlines all calls in `graph`. `model` has the operator sets.
    fn expand(&mut self, graph: &mut Graph, model: &Model, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::unsupported(format!("functions and bodies nested deeper than {MAX_DEPTH} levels")));
        }
        for id in graph.order()? {
            let node = graph.node(id);
            if self.templates.contains_key(&node.op) {
                let label = node.label();
                self.expand_call(graph, id, model, depth).context(|| label)?;
            } else if node.bodies().next().is_some() {
                let label = node.label();
                let mut names = graph.take_names();
                for body in graph.node_mut(id).bodies_mut() {
                    body.lend_names(std::mem::take(&mut names));
                    self.expand(body, model, depth + 1).context(|| &label)?;
                    names = body.take_names();
                }
                graph.lend_names(names);
                graph.refresh_captures(id)?;
            }
        }
        Ok(())
    }

    fn expand_call(&mut self, graph: &mut Graph, id: NodeId, model: &Model, depth: usize) -> Result<()> {
        let op = graph.node(id).op.clone();
        self.calls += 1;
        let mut inside = self.instance(graph.node(id), model)?;
        self.expand(&mut inside, model, depth + 1)?;
        splice::splice(graph, id, inside, &format!("{}_{}", op.op_type, self.calls))
    }

    /// The function's graph for this call: attributes bound, in the model's operator set.
    fn instance(&self, call: &Node, model: &Model) -> Result<Graph> {
        let template = self.templates.get(&call.op).ok_or_else(|| Error::internal("a function without a template"))?;
        let mut instance = template.model.clone();
        bind::bind(&mut instance.graph, &call.attributes, &template.defaults)?;
        if let (Some(have), Some(want)) = (instance.opset(""), model.opset(""))
            && have < want
        {
            self.upgrade(&mut instance, want)?;
        }
        for import in &template.model.opsets {
            let (domain, version) = (import.domain(), import.version());
            let differs = !canonical_domain(domain).is_empty() && model.opset(domain) != Some(version);
            if differs && self.has_operators_of(&instance.graph, domain) {
                let other = model.opset(domain).unwrap_or_default();
                return Err(Error::unsupported(format!("it imports {domain} {version}, the model {other}")));
            }
        }
        Ok(instance.graph)
    }

    fn has_operators_of(&self, graph: &Graph, domain: &str) -> bool {
        graph.nodes().any(|id| {
            let node = graph.node(id);
            (&*node.op.domain == domain && !self.protos.contains_key(&node.op))
                || node.bodies().any(|b| self.has_operators_of(b, domain))
        })
    }

    /// Upgrades the operators, but not the calls of functions that hide operators.
    fn upgrade(&self, model: &mut Model, version: i64) -> Result<()> {
        self.hide(&mut model.graph);
        let result = opset::require(model, version);
        unhide(&mut model.graph);
        result
    }

    fn hide(&self, graph: &mut Graph) {
        for id in graph.nodes().collect::<Vec<_>>() {
            let node = graph.node_mut(id);
            if node.op.domain.is_empty() && self.protos.contains_key(&node.op) {
                node.op.domain = HIDDEN.into();
            }
            node.bodies_mut().for_each(|b| self.hide(b));
        }
    }
}

fn unhide(graph: &mut Graph) {
    for id in graph.nodes().collect::<Vec<_>>() {
        let node = graph.node_mut(id);
        if &*node.op.domain == HIDDEN {
            node.op.domain = "".into();
        }
        node.bodies_mut().for_each(unhide);
    }
}

impl Template {
    fn new(f: &proto::FunctionProto) -> Result<Self> {
        let named = |name: &String| proto::ValueInfoProto { name: Some(name.clone()), ..Default::default() };
        // A function holds attributes as it holds nodes: as read, so a node carries them through the decoder.
        let carrier = proto::NodeProto {
            op_type: Some("defaults".into()),
            attribute: f.attribute_proto.clone(),
            ..Default::default()
        };
        let defaults = decode(proto::GraphProto { node: vec![carrier], ..Default::default() }, vec![])?;
        let defaults = defaults.graph.nodes().flat_map(|id| defaults.graph.node(id).attributes.clone()).collect();
        let graph = proto::GraphProto {
            node: f.node.clone(),
            input: f.input.iter().map(named).collect(),
            output: f.output.iter().map(named).collect(),
            ..Default::default()
        };
        Ok(Self { model: decode(graph, f.opset_import.clone())?, defaults })
    }
}

fn decode(graph: proto::GraphProto, opset_import: Vec<proto::OperatorSetIdProto>) -> Result<Model> {
    model_from_proto(proto::ModelProto { graph: Some(graph), opset_import, ..Default::default() })
}
