//! A graph in another float type.

use super::keep::{Keep, Kept};
use crate::analysis::shapes::Contexts;
use crate::error::Result;
use crate::ir::{AttributeValue, DType, Graph, Model, Node, NodeId, OpId, Port, Tensor, TensorType, Type, ValueId};
use crate::ops;
use crate::passes::{Effect, Note, Outcome, Pass, PassContext, Patch, Ref};
use std::cell::RefCell;
use std::collections::HashMap;

/// Before: nodes that compute in `from`. After: the same nodes on values of type `to`, with a Cast where a value crosses
/// over to a node that stays.
///
/// When: every node of the main graph that has a `from` among its inputs, but for those with bodies and those that
/// `keep` holds back. Constants are converted; those that both kinds of nodes use are there twice.
/// Loss: to f16, every value is rounded to 11 bits. To f32, none.
pub struct Retype<'k> {
    /// The type that goes.
    pub from: DType,
    /// The type that comes.
    pub to: DType,
    /// Graph inputs and outputs change their type too.
    pub interface: bool,
    /// What holds nodes back; `None` where nothing does.
    pub keep: Option<&'k Keep>,
    /// Nodes that stay, for the report.
    pub kept: RefCell<Vec<Kept>>,
    /// Number of nodes that change.
    pub converted: RefCell<usize>,
}

impl<'k> Retype<'k> {
    /// From one type to the other, the interface as it was.
    pub fn new(from: DType, to: DType, keep: Option<&'k Keep>) -> Self {
        Self { from, to, interface: false, keep, kept: RefCell::default(), converted: RefCell::default() }
    }
}

impl Pass for Retype<'_> {
    fn name(&self) -> &'static str {
        "retype"
    }

    fn effect(&self) -> Effect {
        if self.to == DType::F32 { Effect::Rounding } else { Effect::Lossy }
    }

    fn run(&self, model: &mut Model, cx: &PassContext) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        if !cx.burn(self.name()) {
            return Ok(outcome);
        }
        let (patch, changes) = self.patch(model)?;
        patch.apply(&mut model.graph)?;
        if self.interface {
            self.retype_inputs(&mut model.graph);
            let graph = &model.graph;
            for &v in graph.outputs() {
                if graph.ty(v).and_then(|t| t.elem()) == Some(self.from) {
                    let text = format!("this output stays {}: what makes it does", self.from);
                    outcome.notes.push(Note { pass: self.name().into(), subject: graph.name(v).into(), text });
                }
            }
        }
        model.graph.eliminate_dead()?;
        outcome.changes = changes;
        Ok(outcome)
    }
}

impl Retype<'_> {
    fn patch(&self, model: &Model) -> Result<(Patch, usize)> {
        let graph = &model.graph;
        let contexts = Contexts::new(model, graph);
        let mut writer = Writer { graph, to: self.to, from: self.from, patch: Patch::default(), new: HashMap::new() };
        if self.interface {
            writer.inputs();
        }
        let mut changes = 0;
        for id in graph.order()? {
            let node = graph.node(id);
            let values = graph.node_inputs(id).into_iter().chain(graph.node_outputs(id));
            if !values.flatten().any(|v| writer.is_from(v)) {
                continue;
            }
            let reason = match self.keep {
                Some(keep) => keep.reason(graph, &contexts, id),
                None => node.bodies().next().map(|_| "has a body".to_string()),
            };
            match reason {
                Some(reason) => {
                    let (name, op) = (node.name.to_string(), node.op.to_string());
                    self.kept.borrow_mut().push(Kept { name, op, reason });
                }
                None => {
                    writer.node(id, self.interface)?;
                    changes += 1;
                }
            }
        }
        *self.converted.borrow_mut() = changes;
        Ok((writer.patch, changes))
    }

    fn retype_inputs(&self, graph: &mut Graph) {
        for v in graph.required_inputs().collect::<Vec<_>>() {
            let captured = graph.uses(v).iter().any(|u| matches!(u.port, Port::Capture(_)));
            let value = graph.value_mut(v);
            if let Some(Type::Tensor(t)) = &mut value.ty
                && t.elem == self.from
                && !captured
            {
                t.elem = self.to;
                value.shell = None;
            }
        }
    }
}

struct Writer<'a> {
    graph: &'a Graph,
    from: DType,
    to: DType,
    patch: Patch,
    /// The new form of a value.
    new: HashMap<ValueId, Ref>,
}

impl Writer<'_> {
    fn is_from(&self, v: ValueId) -> bool {
        self.graph.ty(v).and_then(|t| t.elem()) == Some(self.from)
    }

    /// Inputs that will have the new type themselves; what stays in the old one gets a Cast of them.
    fn inputs(&mut self) {
        let graph = self.graph;
        for v in graph.required_inputs().filter(|&v| self.is_from(v)).collect::<Vec<_>>() {
            let uses = graph.uses(v);
            if uses.iter().any(|u| matches!(u.port, Port::Capture(_))) || graph.is_output(v) {
                continue; // a body wants it as it is
            }
            let back = self.cast(v.into(), self.from, v, 0);
            for u in uses {
                if let Port::In(slot) = u.port {
                    self.patch.set_input(u.node, slot as usize, Some(back));
                }
            }
            self.new.insert(v, v.into());
        }
    }

    fn cast(&mut self, x: Ref, to: DType, like: ValueId, rank: u32) -> Ref {
        let mut node = Node::new(OpId::onnx("Cast"));
        node.rank = rank;
        node.set("to", i64::from(to.onnx()).into());
        let hint = format!("{}_{}", self.graph.name(like), short(to));
        let ty = self.ty(like, to);
        self.patch.node(node, &[Some(x)], &hint, ty)
    }

    fn ty(&self, v: ValueId, elem: DType) -> Option<Type> {
        let shape = self.graph.ty(v)?.as_tensor()?.shape.clone();
        Some(Type::Tensor(TensorType { elem, shape }))
    }

    /// The value in the new type.
    fn form(&mut self, v: ValueId) -> Result<Ref> {
        if let Some(&found) = self.new.get(&v) {
            return Ok(found);
        }
        let made = match self.graph.constant(v) {
            Some(t) => {
                let hint = format!("{}_{}", self.graph.name(v), short(self.to));
                self.patch.constant(&hint, converted(t, self.to)?)
            }
            None => {
                let rank = self.graph.producer(v).map_or(0, |(p, _)| self.graph.node(p).rank);
                self.cast(v.into(), self.to, v, rank)
            }
        };
        self.new.insert(v, made);
        Ok(made)
    }

    fn node(&mut self, id: NodeId, interface: bool) -> Result<()> {
        let graph = self.graph;
        let old = graph.node(id);
        let slots = ops::spec(&old.op).map_or(&[][..], |s| s.f32_slots());
        let mut inputs = vec![];
        for (slot, v) in graph.node_inputs(id).into_iter().enumerate() {
            inputs.push(match v {
                Some(v) if self.is_from(v) && !slots.contains(&slot) => Some(self.form(v)?),
                v => v.map(Ref::Old),
            });
        }
        let mut node = old.clone();
        node.shell = None;
        for a in &mut node.attributes {
            match &mut a.value {
                AttributeValue::Tensor(t) if t.dtype == self.from => *t = converted(t, self.to)?,
                AttributeValue::Int(code) if *code == i64::from(self.from.onnx()) && is_type(&a.name) => {
                    *code = self.to.onnx().into();
                }
                _ => {}
            }
        }
        let outputs = graph.node_outputs(id);
        let hint = |v: ValueId| match self.is_from(v) {
            true => (format!("{}_{}", graph.name(v), short(self.to)), self.ty(v, self.to)),
            false => (graph.name(v).to_string(), graph.ty(v).cloned()),
        };
        let made = self.patch.node_with(node, &inputs, outputs.iter().map(|v| v.map(hint)).collect());
        for (v, new) in outputs.into_iter().zip(made) {
            let (Some(v), Some(new)) = (v, new) else { continue };
            if !self.is_from(v) {
                self.patch.replace(v, new);
                continue;
            }
            self.new.insert(v, new);
            let uses = graph.uses(v);
            if interface && graph.is_output(v) && !uses.iter().any(|u| matches!(u.port, Port::Capture(_))) {
                let back = self.cast(new, self.from, v, old.rank);
                for u in uses {
                    if let Port::In(slot) = u.port {
                        self.patch.set_input(u.node, slot as usize, Some(back));
                    }
                }
                self.patch.replace(v, new);
                continue;
            }
            // For whatever stays in the old type; dead where nothing does.
            let back = self.cast(new, self.from, v, old.rank);
            self.patch.replace(v, back);
        }
        Ok(())
    }
}

fn is_type(attribute: &str) -> bool {
    ["to", "dtype", "output_datatype", "output_dtype"].contains(&attribute)
}

fn short(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "f16",
        DType::BF16 => "bf16",
        _ => "f32",
    }
}

/// A float tensor in another float type, rounded to nearest.
pub(super) fn converted(t: &Tensor, to: DType) -> Result<Tensor> {
    let data = t.to_f32()?;
    let bytes: Vec<u8> = match to {
        DType::F16 => data.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect(),
        DType::BF16 => data.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect(),
        _ => return Ok(Tensor::from_f32(&t.dims, &data)),
    };
    Ok(Tensor::raw(to, &t.dims, bytes))
}
