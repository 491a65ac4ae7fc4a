//! Patches: what a rule asks the driver to change. A rule reads the graph and returns one; it never mutates.

use crate::error::Result;
use crate::ir::{Graph, Node, NodeId, Tensor, Type, Value, ValueId};
use std::collections::HashMap;

/// A value in a patch: one that the graph has, or one that the patch adds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ref {
    /// A value of the graph.
    Old(ValueId),
    /// The n-th value that the patch adds.
    New(usize),
}

impl From<ValueId> for Ref {
    fn from(v: ValueId) -> Self {
        Ref::Old(v)
    }
}

/// A list of changes that are made together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    steps: Vec<Step>,
    values: usize,
}

#[derive(Clone, Debug)]
enum Step {
    Value { hint: String, ty: Option<Type>, init: Option<Tensor> },
    Node { node: Box<Node>, inputs: Vec<Option<Ref>>, outputs: Vec<Option<usize>> },
    Replace { old: ValueId, new: Ref },
    SetInput { node: NodeId, slot: usize, value: Option<Ref> },
    FixInput { value: ValueId },
    SetValue { value: ValueId, ty: Option<Type>, init: Option<Tensor> },
    SetNode { id: NodeId, node: Box<Node> },
    Inline { node: NodeId, body: &'static str },
    Lift { node: NodeId, body: &'static str, nodes: Vec<NodeId> },
}

impl Patch {
    /// Whether the patch changes nothing.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    fn value(&mut self, hint: &str, ty: Option<Type>, init: Option<Tensor>) -> usize {
        self.steps.push(Step::Value { hint: hint.to_string(), ty, init });
        self.values += 1;
        self.values - 1
    }

    /// Adds an initializer, named `hint` or, where that is taken, with a number behind.
    pub fn constant(&mut self, hint: &str, tensor: Tensor) -> Ref {
        let ty = Type::tensor(tensor.dtype, &tensor.dims);
        Ref::New(self.value(hint, Some(ty), Some(tensor)))
    }

    /// Adds a node with one output, named as [`Patch::constant`] names.
    pub fn node(&mut self, node: Node, inputs: &[Option<Ref>], hint: &str, ty: Option<Type>) -> Ref {
        let out = self.value(hint, ty, None);
        self.steps.push(Step::Node { node: Box::new(node), inputs: inputs.to_vec(), outputs: vec![Some(out)] });
        Ref::New(out)
    }

    /// Adds a node with several outputs: a name hint and a type for each; `None` for an absent one.
    pub fn node_with(
        &mut self,
        node: Node,
        inputs: &[Option<Ref>],
        outputs: Vec<Option<(String, Option<Type>)>>,
    ) -> Vec<Option<Ref>> {
        let slots: Vec<Option<usize>> =
            outputs.into_iter().map(|o| o.map(|(hint, ty)| self.value(&hint, ty, None))).collect();
        let refs = slots.iter().map(|k| k.map(Ref::New)).collect();
        self.steps.push(Step::Node { node: Box::new(node), inputs: inputs.to_vec(), outputs: slots });
        refs
    }

    /// Makes every use of `old` a use of `new`. A `new` that the patch added takes over the name of `old`; a graph
    /// output always keeps its name (see [`Graph::is_output`]).
    pub fn replace(&mut self, old: ValueId, new: impl Into<Ref>) {
        self.steps.push(Step::Replace { old, new: new.into() });
    }

    /// Puts `node`, with as many outputs of the same types, in the place of `old`.
    pub fn replace_node(&mut self, graph: &Graph, old: NodeId, mut node: Node, inputs: &[Option<Ref>]) {
        node.rank = graph.node(old).rank;
        let outputs = graph.node_outputs(old);
        let describe = |v: ValueId| (graph.name(v).to_string(), graph.ty(v).cloned());
        let new = self.node_with(node, inputs, outputs.iter().map(|v| v.map(describe)).collect());
        for (old, new) in outputs.into_iter().zip(new) {
            if let (Some(old), Some(new)) = (old, new) {
                self.replace(old, new);
            }
        }
    }

    /// Points one input of a node at another value.
    pub fn set_input(&mut self, node: NodeId, slot: usize, value: Option<Ref>) {
        self.steps.push(Step::SetInput { node, slot, value });
    }

    /// Gives a value another type, and an initializer other data: for what keeps its meaning and changes its shape.
    pub fn set_value(&mut self, value: ValueId, ty: Option<Type>, init: Option<Tensor>) {
        self.steps.push(Step::SetValue { value, ty, init });
    }

    /// Changes the attributes of a node in place.
    pub fn set_node(&mut self, id: NodeId, node: Node) {
        self.steps.push(Step::SetNode { id, node: Box::new(node) });
    }

    /// Takes an initializer that is also a graph input off the inputs, which makes it a constant.
    pub fn fix_input(&mut self, value: ValueId) {
        self.steps.push(Step::FixInput { value });
    }

    /// Puts the nodes of a body without inputs in the place of the node that owns it: its outputs become the node's.
    pub fn inline(&mut self, node: NodeId, body: &'static str) {
        self.steps.push(Step::Inline { node, body });
    }

    /// Moves nodes of a body, given in execution order, into the graph around it, where they run once.
    pub fn lift(&mut self, node: NodeId, body: &'static str, nodes: Vec<NodeId>) {
        self.steps.push(Step::Lift { node, body, nodes });
    }

    /// Makes the changes. Deletes nothing.
    pub(super) fn apply(self, graph: &mut Graph) -> Result<()> {
        let mut added: Vec<ValueId> = Vec::with_capacity(self.values);
        // A later step that names a replaced value means what replaced it.
        let mut replaced: HashMap<ValueId, ValueId> = HashMap::new();
        for step in self.steps {
            match step {
                Step::Value { hint, ty, init } => {
                    let mut value = Value::named(graph.fresh_name(&hint));
                    value.ty = ty;
                    value.init = init;
                    added.push(graph.add_value(value)?);
                }
                Step::Node { node, inputs, outputs } => {
                    let inputs: Vec<_> = inputs.into_iter().map(|r| r.map(|r| find(r, &added, &replaced))).collect();
                    let outputs: Vec<_> = outputs.into_iter().map(|k| k.map(|k| added[k])).collect();
                    graph.add_node(*node, &inputs, &outputs)?;
                }
                Step::Replace { old, new } => {
                    let to = find(new, &added, &replaced);
                    replace(graph, old, to, matches!(new, Ref::New(_)))?;
                    replaced.insert(old, to);
                }
                Step::SetInput { node, slot, value } => {
                    graph.set_input(node, slot, value.map(|r| find(r, &added, &replaced)));
                }
                Step::FixInput { value } => {
                    let kept = graph.inputs().iter().copied().filter(|&v| v != value).collect();
                    graph.set_inputs(kept);
                }
                Step::SetValue { value, ty, init } => {
                    let value = graph.value_mut(value);
                    value.ty = ty;
                    value.init = init;
                }
                Step::SetNode { id, node } => graph.node_mut(id).attributes = node.attributes,
                Step::Inline { node, body } => graph.inline(node, body)?,
                Step::Lift { node, body, nodes } => graph.lift(node, body, &nodes)?,
            }
        }
        Ok(())
    }
}

fn find(r: Ref, added: &[ValueId], replaced: &HashMap<ValueId, ValueId>) -> ValueId {
    let mut v = match r {
        Ref::Old(v) => v,
        Ref::New(k) => added[k],
    };
    while let Some(&next) = replaced.get(&v) {
        v = next;
    }
    v
}

fn replace(graph: &mut Graph, old: ValueId, new: ValueId, added: bool) -> Result<()> {
    let was_output = graph.is_output(old);
    graph.replace_uses(old, new)?;
    if added && !was_output && !graph.is_output(new) {
        let name = graph.value(old).name.clone();
        let spare = graph.fresh_name(&format!("{name}_replaced"));
        graph.rename(old, &spare)?;
        graph.rename(new, &name)?;
    }
    Ok(())
}
