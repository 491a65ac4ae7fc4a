//! Edits of big graphs take linear time, and keep every index right.

use super::{AttributeValue, Graph, Node, NodeId, OpId, Port, Tensor, Value, ValueId};
use proptest::prelude::*;
use std::sync::Arc;

/// Enough that a quadratic step takes minutes, which whoever runs the tests notices; `tests/scale.rs` measures.
const MANY: usize = 50_000;

fn value(g: &mut Graph, name: &str) -> ValueId {
    let name = g.fresh_name(name);
    g.add_value(Value::named(name)).unwrap()
}

/// Adds a node with one output.
fn node(g: &mut Graph, op: &str, inputs: &[ValueId]) -> (NodeId, ValueId) {
    let out = value(g, "v");
    let mut node = Node::new(OpId::onnx(op));
    node.rank = g.g.node_count() as u32;
    let inputs: Vec<_> = inputs.iter().map(|&v| Some(v)).collect();
    (g.add_node(node, &inputs, &[Some(out)]).unwrap(), out)
}

fn with_input() -> (Graph, ValueId) {
    let mut g = Graph::default();
    let x = value(&mut g, "x");
    g.set_inputs(vec![x]);
    (g, x)
}

/// What the tables and counts say equals what the nodes' inputs say.
fn check(g: &Graph) {
    g.verify().unwrap();
    for v in g.values() {
        let mut seen = vec![];
        for id in g.nodes() {
            let inputs = g.node_inputs(id);
            let slots =
                inputs.iter().enumerate().filter(|(_, i)| **i == Some(v)).map(|(k, _)| (id, Port::In(k as u32)));
            seen.extend(slots);
            for (k, _) in inputs.iter().enumerate() {
                assert_eq!(g.input(id, k), inputs[k]);
            }
            assert_eq!(g.producer(g.output(id, 0).unwrap()), Some((id, 0)));
        }
        seen.sort_by_key(|(id, port)| (g.node(*id).rank, *id, *port));
        let uses: Vec<_> = g.uses(v).into_iter().map(|u| (u.node, u.port)).collect();
        assert_eq!(uses, seen);
        assert_eq!(g.use_count(v), seen.len());
        assert_eq!(g.is_output(v), g.outputs().contains(&v));
        assert_eq!(g.is_input(v), g.inputs().contains(&v));
    }
}

#[test]
fn a_wide_fan_out_and_a_wide_fan_in() {
    let (mut g, x) = with_input();
    let y = value(&mut g, "y");
    g.set_inputs(vec![x, y]);
    let users: Vec<_> = (0..MANY).map(|_| node(&mut g, "Identity", &[x])).collect();
    let outs: Vec<ValueId> = users.iter().map(|u| u.1).collect();
    let (concat, out) = node(&mut g, "Concat", &outs);
    g.set_outputs(vec![out]);
    for (k, (user, _)) in users.iter().enumerate() {
        g.set_input(*user, 0, Some(y)); // oldest edge first
        assert_eq!(g.input(concat, k), Some(outs[k]));
        assert!(g.only_use(outs[k]).is_some());
    }
    assert_eq!((g.use_count(x), g.use_count(y)), (0, MANY));
    for v in &outs {
        g.replace_uses(*v, x).unwrap();
    }
    assert_eq!(g.eliminate_dead().unwrap(), MANY);
    assert_eq!((g.use_count(x), g.node_count()), (MANY, 1));
    g.replace_uses(x, y).unwrap();
    assert_eq!(g.uses(y).len(), MANY);
    g.verify().unwrap();
}

#[test]
fn a_deep_chain_and_many_outputs() {
    let (mut g, x) = with_input();
    let mut outs = vec![];
    let mut v = x;
    for _ in 0..MANY {
        v = node(&mut g, "Relu", &[v]).1;
        outs.push(v);
    }
    g.set_outputs(outs.clone());
    assert_eq!(g.order().unwrap().len(), MANY);
    let twin = node(&mut g, "Neg", &[x]).1;
    for out in &outs {
        g.replace_uses(*out, twin).unwrap(); // the first takes the name over, each other one gets an Identity
        assert!(g.is_output(twin) && !g.is_output(*out));
    }
    assert_eq!(g.outputs().len(), MANY);
    assert_eq!(g.eliminate_dead().unwrap(), MANY);
    g.verify().unwrap();
}

#[test]
fn fresh_names_are_free() {
    let mut g = Graph::default();
    for k in 0..MANY {
        let name = g.fresh_name("w");
        assert_eq!(*name, if k == 0 { "w".to_string() } else { format!("w_{k}") });
        g.add_value(Value::named(name)).unwrap();
    }
    g.add_value(Value::named("u_1")).unwrap();
    assert_eq!(&*g.fresh_name("u"), "u");
    assert_eq!(&*g.fresh_name("u"), "u_2");
    assert_eq!(&*g.fresh_name(""), "_1");
}

/// A graph with an If whose body is `body`.
fn around(body: Graph) -> (Graph, NodeId) {
    let (mut g, x) = with_input();
    let out = value(&mut g, "y");
    let mut owner = Node::new(OpId::onnx("If"));
    owner.set("then_branch", AttributeValue::Graph(Box::new(body)));
    let id = g.add_node(owner, &[Some(x)], &[Some(out)]).unwrap();
    g.set_outputs(vec![out]);
    (g, id)
}

#[test]
fn a_body_knows_the_names_around_it() {
    let (mut g, x) = with_input();
    let inner = node(&mut g, "Relu", &[x]).1;
    g.rename(inner, "inner").unwrap();
    g.set_inputs(vec![]);
    g.set_outputs(vec![inner]);
    let (mut g, owner) = around(g);
    assert_eq!(g.captures(owner), [g.find("x").unwrap()]);
    assert_eq!(&*g.fresh_name("inner"), "inner_1", "the graph knows the names in its bodies");
    let outer = value(&mut g, "outer");
    g.value_mut(outer).init = Some(Tensor::from_f32(&[], &[1.0]));
    let names = g.take_names();
    let body = g.node_mut(owner).bodies_mut().next().unwrap();
    body.lend_names(names);
    assert_eq!(&*body.fresh_name("outer"), "outer_1", "the body knows the names around it");
    value(body, "new");
    let names = body.take_names();
    g.lend_names(names);
    assert_eq!(&*g.fresh_name("new"), "new_1");
}

#[test]
fn many_bodies_inside_each_other() {
    let (mut g, x) = with_input();
    let mut v = x;
    for _ in 0..MANY / 64 {
        v = node(&mut g, "Relu", &[v]).1;
    }
    g.set_outputs(vec![v]);
    for _ in 0..64 {
        g.set_inputs(vec![]);
        let mut body = g;
        let mut v = body.outputs()[0];
        for _ in 0..MANY / 64 {
            v = node(&mut body, "Relu", &[v]).1;
        }
        body.set_outputs(vec![v]);
        g = around(body).0;
    }
    g.verify().unwrap();
    let x = g.find("x").unwrap();
    g.rename(x, "renamed").unwrap();
    g.verify().unwrap();
    assert_eq!(g.eliminate_dead().unwrap(), 0);
    let copy = g.clone();
    drop(g);
    copy.verify().unwrap();
}

/// What only a dead node of a body used is dead, and so is what only that used.
#[test]
fn one_call_finds_all_that_is_dead() {
    let (mut body, x) = with_input();
    let (_, dead) = node(&mut body, "Neg", &[x]);
    let live = node(&mut body, "Constant", &[]).1;
    body.set_inputs(vec![]);
    body.set_outputs(vec![live]);
    assert!(body.has_uses(x) && !body.has_uses(dead));
    let (mut g, owner) = around(body);
    let captured = g.find("x").unwrap();
    let made = node(&mut g, "Relu", &[captured]).1;
    let name: Arc<str> = "made".into();
    g.rename(made, &name).unwrap();
    let first = g.node_mut(owner).bodies_mut().next().unwrap();
    let x = first.find("x").unwrap();
    first.rename(x, "made").unwrap();
    g.refresh_captures(owner).unwrap();
    assert_eq!(g.eliminate_dead().unwrap(), 2);
    assert!(g.captures(owner).is_empty() && g.find("made").is_none());
    g.verify().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Random edits, enough of them that the edge lists are built anew, and clones that must not see them.
    #[test]
    fn random_edits_keep_the_indices_right(edits in prop::collection::vec((0u8..5, 0usize..64, 0usize..64), 1..64)) {
        let (mut g, x) = with_input();
        let nodes: Vec<_> = (0..24).map(|_| node(&mut g, "Sum", &[x, x, x])).collect();
        g.set_outputs(vec![nodes[3].1, nodes[20].1, nodes[3].1]);
        let mut nodes: Vec<NodeId> = nodes.into_iter().map(|n| n.0).collect();
        for (kind, a, b) in edits {
            let before = g.clone();
            let text: Vec<_> = before.nodes().map(|n| before.node_inputs(n)).collect();
            // Nodes read earlier ones only, so that there is no cycle.
            let (low, high) = (a.min(b) % nodes.len(), a.max(b) % nodes.len());
            let (low, high) = (low.min(high), low.max(high));
            let at = |g: &Graph, k: usize| g.output(nodes[k], 0).unwrap();
            match kind {
                0 if low < high => { let v = at(&g, low); g.set_input(nodes[high], a % 5, Some(v)); }
                1 => g.set_input(nodes[high], b % 3, None),
                2 if low < high && !g.is_output(at(&g, high)) => {
                    let (old, new) = (at(&g, high), at(&g, low));
                    g.replace_uses(old, new).unwrap();
                }
                3 => (0..600).for_each(|k| g.set_input(nodes[high], k % 2, Some(x))),
                4 if nodes.len() > 8 => {
                    g.eliminate_dead().unwrap();
                    nodes = g.order().unwrap();
                }
                _ => {}
            }
            check(&g);
            check(&before);
            let again: Vec<_> = before.nodes().map(|n| before.node_inputs(n)).collect();
            prop_assert_eq!(text, again);
        }
    }
}
