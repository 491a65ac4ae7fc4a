//! How a trap is judged.

use sardonyx::analysis::shapes::infer_types;
use sardonyx::io::text::{parse_graph, parse_model, print_model};
use sardonyx::io::{Feed, probes};
use sardonyx::ir::{DType, Graph, Model, Tensor};
use sardonyx::recipe::{Overridable, Silent, SimplifyStep, simplify};
use sardonyx::runtime::{Runner, RunnerOptions};

/// What a trap is executed on, and how close the outputs must be.
#[derive(Clone, Copy)]
pub enum On {
    /// NaN, infinities, signed zeros, subnormal and largest numbers: the outputs are equal, bit for bit.
    Special,
    /// The same, where rounding may differ; NaN, infinities and the signs of zeros may not.
    SpecialRounded,
    /// The same without NaN, of which Clip, Min, Max and Relu make what they like, as they do of the sign of a zero.
    Ordered,
    /// Ordinary numbers of both signs, zeros, and several sizes of symbolic dimensions: equal up to rounding.
    Plain,
    /// Nothing, for the reason given: only the structure is judged.
    Nothing(&'static str),
}

/// Share of an output's largest element by which rounding may move any element.
const ROUNDING: f32 = 1e-5;

pub fn parse(text: &str, opset: i64) -> Model {
    let model = if text.trim_start().starts_with('<') { parse_model(text) } else { parse_graph(text, opset) };
    let model = model.unwrap_or_else(|e| panic!("{e}"));
    model.verify().unwrap();
    model
}

/// [`simplified`]; `None` where the target operator set is refused, which must be by the operator's name.
fn upgraded(original: &Model, target: Option<i64>) -> Option<Model> {
    match run(original, target) {
        Ok(model) => Some(model),
        Err(e) if target.is_some() => {
            let e = e.to_string();
            let named = original.graph.nodes().any(|id| e.contains(&*original.graph.node(id).op.op_type));
            assert!(named && e.contains("cannot be upgraded"), "{e}");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

/// All rules; no execution, which is what the trap itself does.
pub fn simplified(original: &Model) -> Model {
    run(original, None).unwrap()
}

fn run(original: &Model, target_opset: Option<i64>) -> sardonyx::Result<Model> {
    let mut model = original.clone();
    let step = SimplifyStep { check: false, target_opset, overridable: Overridable::Auto, ..SimplifyStep::default() };
    simplify(&mut model, &step, None, None, &Silent)?;
    model.verify().unwrap();
    Ok(model)
}

/// Simplifies `text` (see [`parse`]) and checks the result; `keeps` says how often an operator occurs then, bodies included.
pub fn judge(text: &str, opset: i64, target: Option<i64>, on: On, keeps: &[(&str, usize)]) {
    let original = parse(text, opset);
    let Some(result) = upgraded(&original, target) else { return };
    let shown = print_model(&result).unwrap();
    assert_eq!(interface(&original), interface(&result), "the interface of\n{shown}");
    for &(op, count) in keeps {
        assert_eq!(occurrences(&result.graph, op), count, "nodes {op} in\n{shown}");
    }
    for feed in feeds(&original, on) {
        let [before, after] = [&original, &result].map(|m| execute(m, &feed));
        let before = before.unwrap_or_else(|e| panic!("the original is not executed: {e}"));
        let after = after.unwrap_or_else(|e| panic!("the result is not executed: {e}\n{shown}"));
        for (a, b) in before.iter().zip(&after) {
            assert_eq!((a.dtype, &a.dims), (b.dtype, &b.dims), "{shown}");
            assert!(same(a, b, on), "{a:?}\nbecame\n{b:?}\non {feed:?}\n{shown}");
        }
    }
}

/// Names and element types of the inputs and outputs. Initializers among the inputs count from IR version 4 on, where a
/// caller may override them.
fn interface(model: &Model) -> Vec<(String, Option<DType>)> {
    let graph = &model.graph;
    let fed = |v: &&_| model.ir_version() > 3 || graph.value(**v).init.is_none();
    let values = graph.inputs().iter().filter(fed).chain(graph.outputs());
    values.map(|&v| (graph.name(v).to_string(), graph.ty(v).and_then(|t| t.elem()))).collect()
}

pub fn occurrences(graph: &Graph, op: &str) -> usize {
    let of = |id| {
        let node = graph.node(id);
        usize::from(&*node.op.op_type == op) + node.bodies().map(|b| occurrences(b, op)).sum::<usize>()
    };
    graph.nodes().map(of).sum()
}

fn feeds(model: &Model, on: On) -> Vec<Feed> {
    let mut typed = model.clone();
    infer_types(&mut typed).unwrap();
    let plain = probes(&typed.graph, 16);
    match on {
        On::Nothing(why) => {
            eprintln!("not executed: {why}");
            vec![]
        }
        On::Plain => plain.unwrap().into_iter().map(|p| p.feed).collect(),
        On::Special | On::SpecialRounded | On::Ordered => {
            let first = usize::from(matches!(on, On::Ordered));
            let mut feed = plain.unwrap().swap_remove(0).feed;
            feed.values_mut().for_each(|t| *t = special(t, first));
            vec![feed]
        }
    }
}

/// A tensor of the same type and shape, of the numbers that show differences.
fn special(t: &Tensor, first: usize) -> Tensor {
    const FLOATS: [f32; 12] =
        [f32::NAN, -0.0, 0.0, f32::INFINITY, f32::NEG_INFINITY, 1.5, -2.5, 1e-40, 3e38, -3e38, 300.7, 16_777_217.0];
    let floats = &FLOATS[first..];
    let cycle = |k: usize| floats[k % floats.len()];
    let integers = |min: i64, max: i64| move |k: usize| [min, max, 0, -1i64.max(min), 7, 1, max / 2][k % 7];
    let n = t.len();
    let data: Vec<u8> = match t.dtype {
        DType::F32 => (0..n).flat_map(|k| cycle(k).to_le_bytes()).collect(),
        DType::F64 => (0..n).flat_map(|k| f64::from(cycle(k)).to_le_bytes()).collect(),
        DType::I64 => (0..n).map(integers(i64::MIN, i64::MAX)).flat_map(i64::to_le_bytes).collect(),
        DType::I32 => {
            (0..n).map(integers(i32::MIN.into(), i32::MAX.into())).flat_map(|x| (x as i32).to_le_bytes()).collect()
        }
        DType::I8 => (0..n).map(integers(-128, 127)).map(|x| x as i8 as u8).collect(),
        DType::U8 => (0..n).map(integers(0, 255)).map(|x| x as u8).collect(),
        DType::Bool => (0..n).map(|k| (k % 2) as u8).collect(),
        other => panic!("no special numbers of {other}"),
    };
    Tensor::raw(t.dtype, &t.dims, data)
}

fn execute(model: &Model, feed: &Feed) -> sardonyx::Result<Vec<Tensor>> {
    Runner::new(model, &RunnerOptions::default())?.run(feed)?.iter().map(|o| o.to_tensor()).collect()
}

fn same(a: &Tensor, b: &Tensor, on: On) -> bool {
    if !a.dtype.is_float() {
        return a.bytes().unwrap() == b.bytes().unwrap();
    }
    let (x, y) = (a.to_f32().unwrap(), b.to_f32().unwrap());
    let largest = x.iter().filter(|x| x.is_finite()).fold(0.0f32, |m, x| m.max(x.abs()));
    let close = |x: f32, y: f32| (x - y).abs() <= ROUNDING * largest.max(f32::MIN_POSITIVE);
    let equal = |(&x, &y): (&f32, &f32)| match on {
        _ if x.is_nan() || y.is_nan() => x.is_nan() && y.is_nan(),
        On::Ordered if x == 0.0 && y == 0.0 => true,
        On::Special | On::Ordered => x.to_bits() == y.to_bits(),
        _ if x == 0.0 && y == 0.0 => x.is_sign_negative() == y.is_sign_negative() || matches!(on, On::Plain),
        _ if x.is_infinite() || y.is_infinite() => x == y,
        _ => close(x, y),
    };
    x.iter().zip(&y).all(equal)
}

/// `name: operator set, (=> target operator set,) what to execute on, "model", keeps "Op" n, ...;`
#[macro_export]
macro_rules! traps {
    ($($name:ident: $opset:literal $(=> $target:literal)?, $on:expr, $text:expr $(, $op:literal $count:literal)*;)*) => {
        $(#[test]
        fn $name() {
            #[allow(unused_mut, unused_assignments)]
            let mut target = None;
            $(target = Some($target);)?
            $crate::judge::judge($text, $opset, target, $on, &[$(($op, $count)),*]);
        })*
    };
}
