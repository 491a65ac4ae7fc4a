//! Which nodes compute in integers, and why the others do not. Structure only: no range, no weight is looked at here.

use super::options::{Format, Mode, QuantizeOptions, Runtime, Scope};
use super::selection::Selection;
use super::stored::{Source, layer};
use crate::analysis::shapes::Contexts;
use crate::error::Result;
use crate::ir::{DType, Graph, Model, NodeId, Tensor, ValueId};
use crate::ops;
use crate::ops::spec::{ComputeRole, QuantRole};
use std::collections::{HashMap, HashSet};

/// Why an operator without a role in quantization stays in float.
pub(super) const NO_FORM: &str = "has no 8-bit form";

/// What becomes of a node.
#[derive(Clone, PartialEq, Debug)]
pub enum Decision {
    /// It computes in integers.
    Integer(Kind),
    /// An activation function that the output clamp of its producer computes.
    Absorbed,
    /// It computes in float on weights that are stored in fewer bits.
    Stored,
    /// It stays as it is, and why.
    Float(String),
    /// It does not compute in float (shape arithmetic, masks): nothing to quantize.
    NotFloat,
}

/// How a node computes in integers.
#[derive(Clone, PartialEq, Debug)]
pub enum Kind {
    /// Linear layer.
    Compute(ComputeRole),
    /// A kernel of its own; slots of the quantized inputs.
    Elementwise(Vec<usize>),
    /// Moves elements of the input at this slot.
    Move(usize),
    /// Joins inputs (all slots).
    Unify,
    /// Clamps in the integer domain.
    Clamp,
    /// Clamps the input at this slot by constants, between roundings to one scale: its output's.
    Bound(usize),
}

/// Decisions for the main graph.
pub struct Structure {
    /// Execution order.
    pub order: Vec<NodeId>,
    decisions: HashMap<NodeId, Decision>,
    /// Bounds of Relu and Clip nodes.
    bounds: HashMap<NodeId, (Option<f32>, Option<f32>)>,
}

impl Structure {
    /// Decides for every node of the main graph.
    ///
    /// # Errors
    /// A cycle, an invalid pattern.
    pub fn decide(model: &Model, options: &QuantizeOptions) -> Result<Self> {
        let graph = &model.graph;
        let selection = Selection::new(options)?;
        let contexts = Contexts::new(model, graph);
        let (wanted, native) = (HashSet::new(), HashSet::new());
        let mut decider = Decider { contexts, graph, options, selection, wanted, native };
        let order = graph.order()?;
        let mut candidates = HashMap::with_capacity(order.len());
        for &id in &order {
            candidates.insert(id, decider.candidate(id));
        }
        decider.demand(&order, &mut candidates);
        decider.supply(&order, candidates)
    }

    /// Decisions for no node at all.
    pub fn empty() -> Self {
        Self { order: vec![], decisions: HashMap::new(), bounds: HashMap::new() }
    }

    /// The decision for a node.
    pub fn decision(&self, id: NodeId) -> &Decision {
        self.decisions.get(&id).unwrap_or(&Decision::NotFloat)
    }

    /// Bounds of a Relu or Clip.
    pub fn bounds(&self, id: NodeId) -> (Option<f32>, Option<f32>) {
        self.bounds.get(&id).copied().unwrap_or_default()
    }

    /// Nodes that compute in integers, in order.
    pub fn integer_nodes(&self) -> impl Iterator<Item = (NodeId, &Kind)> + '_ {
        self.order.iter().filter_map(|&id| match self.decision(id) {
            Decision::Integer(kind) => Some((id, kind)),
            _ => None,
        })
    }

    /// The absorbed activation behind an integer node, if there is one.
    pub fn absorbed_after(&self, graph: &Graph, id: NodeId) -> Option<NodeId> {
        let user = graph.only_use(graph.output(id, 0)?)?.node;
        (self.decision(user) == &Decision::Absorbed).then_some(user)
    }

    /// The value that an integer node delivers: its output, or that of the activation that it absorbs.
    pub fn delivered(&self, graph: &Graph, id: NodeId) -> Option<ValueId> {
        graph.output(self.absorbed_after(graph, id).unwrap_or(id), 0)
    }

    /// Quantized inputs of an integer node: slots.
    pub fn quantized_slots(graph: &Graph, id: NodeId, kind: &Kind) -> Vec<usize> {
        match kind {
            Kind::Compute(role) => vec![role.activation],
            Kind::Elementwise(slots) => slots.clone(),
            Kind::Move(slot) | Kind::Bound(slot) => vec![*slot],
            Kind::Unify => (0..graph.node_inputs(id).len()).collect(),
            Kind::Clamp => vec![0],
        }
    }
}

/// What a node could be.
enum Candidate {
    Can(Kind),
    Activation(Option<f32>, Option<f32>),
    Not(Decision),
}

struct Decider<'a> {
    contexts: Contexts<'a>,
    graph: &'a Graph,
    options: &'a QuantizeOptions,
    selection: Selection,
    /// Values that an integer node takes.
    wanted: HashSet<ValueId>,
    /// Values that an integer node makes.
    native: HashSet<ValueId>,
}

impl Decider<'_> {
    fn candidate(&self, id: NodeId) -> Candidate {
        match self.role(id) {
            Candidate::Not(Decision::Float(_)) if self.has_stored_weights(id) => Candidate::Not(Decision::Stored),
            candidate => candidate,
        }
    }

    /// Whether all weights of the node are stored in fewer bits, and no integer kernel takes them.
    fn has_stored_weights(&self, id: NodeId) -> bool {
        let layer = layer(self.graph, &self.contexts, id, &|_| Source::Other);
        let dequantized = |v: ValueId| {
            let made_by = self.graph.producer(v).map(|(p, _)| &self.graph.node(p).op);
            made_by.is_some_and(|op| op.is("DequantizeLinear"))
        };
        let activation = (0..self.graph.node_inputs(id).len())
            .filter_map(|slot| self.graph.input(id, slot))
            .find(|v| self.graph.constant(*v).is_none() && !layer.stored.contains(v));
        !layer.stored.is_empty() && layer.float.is_empty() && !activation.is_some_and(dequantized)
    }

    fn role(&self, id: NodeId) -> Candidate {
        let node = self.graph.node(id);
        let float = |why: &str| Candidate::Not(Decision::Float(why.to_string()));
        if node.bodies().next().is_some() {
            return Candidate::Not(Decision::NotFloat); // the nodes in it speak for themselves
        }
        let elem = self.graph.output(id, 0).and_then(|v| self.graph.ty(v)).and_then(|t| t.elem());
        match elem {
            Some(DType::F32) => {}
            Some(t) if t.is_float() => return float(&format!("computes in {t}; only float is quantized")),
            Some(_) => return Candidate::Not(Decision::NotFloat),
            None => return float("the type of its output is unknown"),
        }
        if let Some(why) = self.selection.refuses(node) {
            return float(why);
        }
        let Some(spec) = ops::spec(&node.op) else { return float("no facts about this operator") };
        match spec.quant(&self.contexts.of(id)) {
            QuantRole::Opaque => float(NO_FORM),
            QuantRole::Compute(role) => self.compute(id, role),
            QuantRole::Elementwise { inputs } => self.elementwise(id, inputs),
            QuantRole::PassThrough { input } if self.options.scope == Scope::Full => Candidate::Can(Kind::Move(input)),
            QuantRole::Unify if self.options.scope == Scope::Full => self.unify(id),
            QuantRole::Bound { input } if self.rounds_results() && self.options.format == Format::Qdq => {
                Candidate::Can(Kind::Bound(input))
            }
            QuantRole::Bound { .. } => float("has no 8-bit form"),
            QuantRole::Activation { low, high } => Candidate::Activation(low, high),
            QuantRole::PassThrough { .. } | QuantRole::Unify => float("outside of --scope inputs"),
        }
    }

    fn compute(&self, id: NodeId, role: ComputeRole) -> Candidate {
        let constant = |slot| self.graph.input(id, slot).and_then(|v| self.graph.constant(v));
        let float = |why: &str| Candidate::Not(Decision::Float(why.to_string()));
        let weight = self.graph.input(id, role.weight);
        let made_by = weight.and_then(|w| self.graph.producer(w)).map(|(p, _)| &self.graph.node(p).op);
        match constant(role.weight) {
            None if made_by.is_some_and(|op| op.is("DequantizeLinear")) => return float("it is quantized already"),
            None => return float("its weight is not a constant"),
            Some(w) if w.dtype != DType::F32 => return float("its weight is not float"),
            Some(w) if w.is_empty() => return float("its weight is empty"),
            Some(_) => {}
        }
        let bias = role.bias.filter(|&slot| self.graph.input(id, slot).is_some());
        if bias.is_some_and(|slot| constant(slot).is_none_or(|b| b.dtype != DType::F32)) {
            return float("its bias is not a float constant");
        }
        let channels = constant(role.weight).and_then(|w| w.dims.get(role.weight_axis).copied());
        let per_channel = |b: &Tensor| b.dims.last().copied() == channels && Some(b.len()) == channels;
        if bias.is_some_and(|slot| !constant(slot).is_some_and(per_channel)) {
            return float("its bias does not have one element per output channel");
        }
        if self.graph.input(id, role.activation).is_none_or(|v| self.graph.constant(v).is_some()) {
            return float("its input is a constant");
        }
        Candidate::Can(Kind::Compute(role))
    }

    fn elementwise(&self, id: NodeId, inputs: Vec<usize>) -> Candidate {
        let float = |why: &str| Candidate::Not(Decision::Float(why.to_string()));
        match (self.options.mode, self.options.scope) {
            (Mode::Dynamic, _) => return float("only linear layers have dynamic ranges"),
            (_, Scope::Inputs) => return float("outside of --scope inputs"),
            (_, Scope::Full) => {}
        }
        if self.options.format == Format::Qlinear && self.options.runtime == Runtime::Portable {
            return float("the standard has no 8-bit operator for it (--runtime ort has)");
        }
        let activation = |slot: &usize| self.graph.input(id, *slot).is_some_and(|v| self.is_f32_activation(v));
        if !inputs.iter().all(activation) {
            return float("an operand is a constant");
        }
        Candidate::Can(Kind::Elementwise(inputs))
    }

    fn unify(&self, id: NodeId) -> Candidate {
        if self.options.mode == Mode::Dynamic {
            return Candidate::Not(Decision::Float("only linear layers have dynamic ranges".into()));
        }
        let inputs = self.graph.node_inputs(id);
        if !inputs.into_iter().all(|v| v.is_some_and(|v| self.is_f32_activation(v))) {
            return Candidate::Not(Decision::Float("an operand is a constant".into()));
        }
        Candidate::Can(Kind::Unify)
    }

    /// Whether results of integer nodes are in 8 bits.
    fn rounds_results(&self) -> bool {
        self.options.scope == Scope::Full && self.options.mode == Mode::Static
    }

    fn is_f32_activation(&self, v: ValueId) -> bool {
        let elem = self.graph.ty(v).and_then(|t| t.elem());
        self.graph.value(v).init.is_none() && elem == Some(DType::F32)
    }

    /// Backwards: a node whose result no integer node takes gains nothing from 8 bits and loses accuracy.
    fn demand(&mut self, order: &[NodeId], candidates: &mut HashMap<NodeId, Candidate>) {
        for &id in order.iter().rev() {
            let Some(candidate) = candidates.get_mut(&id) else { continue };
            let out_wanted = self.graph.output(id, 0).is_some_and(|v| self.wanted.contains(&v));
            let slots = match candidate {
                Candidate::Not(_) => continue,
                Candidate::Activation(..) if out_wanted => vec![0],
                Candidate::Activation(..) => continue,
                Candidate::Can(Kind::Move(slot)) if out_wanted => vec![*slot],
                Candidate::Can(Kind::Move(_)) => continue,
                Candidate::Can(Kind::Elementwise(_) | Kind::Unify | Kind::Bound(_)) if !out_wanted => {
                    let why = "no 8-bit operator takes its result";
                    *candidate = Candidate::Not(Decision::Float(why.into()));
                    continue;
                }
                Candidate::Can(kind) => Structure::quantized_slots(self.graph, id, kind),
            };
            for slot in slots {
                self.wanted.extend(self.graph.input(id, slot));
            }
        }
    }

    /// Forwards: activations are absorbed where they can be, and data movement follows its input.
    fn supply(&mut self, order: &[NodeId], candidates: HashMap<NodeId, Candidate>) -> Result<Structure> {
        let mut decisions = HashMap::with_capacity(order.len());
        let mut bounds = HashMap::new();
        let mut candidates = candidates;
        for &id in order {
            let Some(candidate) = candidates.remove(&id) else { continue };
            let decision = match candidate {
                Candidate::Not(decision) => decision,
                Candidate::Activation(low, high) => {
                    bounds.insert(id, (low, high));
                    self.activation(id, (low, high), &decisions)
                }
                Candidate::Can(Kind::Move(slot)) => self.movement(id, slot),
                Candidate::Can(Kind::Bound(slot)) => self.bound(id, slot),
                Candidate::Can(kind) => Decision::Integer(kind),
            };
            if matches!(decision, Decision::Integer(_) | Decision::Absorbed) && self.rounds_results() {
                self.native.extend(self.graph.output(id, 0));
            }
            decisions.insert(id, decision);
        }
        Ok(Structure { order: order.to_vec(), decisions, bounds })
    }

    fn activation(
        &self,
        id: NodeId,
        bounds: (Option<f32>, Option<f32>),
        decisions: &HashMap<NodeId, Decision>,
    ) -> Decision {
        let Some(x) = self.graph.input(id, 0).filter(|x| self.native.contains(x)) else {
            return Decision::Float("its input is computed in float".into());
        };
        let producer = self.graph.producer(x).map(|(p, _)| p);
        let computes =
            |p| matches!(decisions.get(&p), Some(Decision::Integer(Kind::Compute(_) | Kind::Elementwise(_))));
        if producer.is_some_and(computes) && self.graph.only_use(x).is_some() {
            return Decision::Absorbed;
        }
        // On codes of its input, bounds narrower than a few steps would be lost; zero is always a code.
        match bounds {
            (None | Some(0.0), None) => Decision::Integer(Kind::Clamp),
            _ => Decision::Float("clamps a value that is used unclamped too".into()),
        }
    }

    /// The input takes the range of the output, so nobody else may want it, and it must be rounded anyway.
    fn bound(&self, id: NodeId, slot: usize) -> Decision {
        match self.graph.input(id, slot) {
            Some(x) if !self.native.contains(&x) => Decision::Float("its input is computed in float".into()),
            Some(x) if self.graph.only_use(x).is_some() => Decision::Integer(Kind::Bound(slot)),
            _ => Decision::Float("clamps a value that is used unclamped too".into()),
        }
    }

    fn movement(&self, id: NodeId, slot: usize) -> Decision {
        if self.options.mode == Mode::Dynamic {
            return Decision::Float("only linear layers have dynamic ranges".into());
        }
        let is = |set: &HashSet<ValueId>, v: Option<ValueId>| v.is_some_and(|v| set.contains(&v));
        let x = self.graph.input(id, slot);
        if x.is_none_or(|x| self.graph.value(x).init.is_some()) {
            return Decision::Float("its input is a constant".into());
        }
        if is(&self.native, x) || is(&self.wanted, self.graph.output(id, 0)) {
            return Decision::Integer(Kind::Move(slot));
        }
        Decision::Float("its input is computed in float".into())
    }
}
