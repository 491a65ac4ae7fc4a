//! Integer convolutions and matrix products on f32 kernels, exactly.
//!
//! tract's own integer kernels are right but 7 to 10 times slower than its f32 ones. Sums of integers are exact in f32 while
//! every partial sum stays below 2^24, whatever the order of summation. So the operands are centred (zero points
//! subtracted) and cast, the f32 operator runs, and [`super::super::kernels::Requantize`] does the rest. Where the bound
//! `sum |w - w_zero| * max |x - x_zero| < 2^24` does not hold for an output channel, the weight is split as
//! `16 * high + low` into two products; where that does not help either, or the weight is not constant and long, the
//! product runs in f64.

use super::super::kernels::{DEQUANTIZE, DYNAMIC_QUANTIZE, REQUANTIZE, Requantize};
use super::emit::Emit;
use crate::error::{Context, Error, Result};
use crate::ir::{AttributeValue, DType, Graph, NodeId, Tensor, ValueId};

/// Below this, sums of integers are exact in f32.
const EXACT: f64 = 16_777_216.0;

/// Attributes of Conv.
const CONV: &[&str] = &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];

/// An integer product: what is multiplied, and along which axis of the weight outputs lie.
struct Product<'a> {
    op: &'a str,
    attributes: Vec<(&'static str, AttributeValue)>,
    x: ValueId,
    x_zero: Option<ValueId>,
    /// Axis of `x_zero`, where it is a vector.
    x_axis: i64,
    w: ValueId,
    w_zero: Option<ValueId>,
    /// Axis of `w_zero`, where it is a vector.
    w_axis: i64,
    bias: Option<ValueId>,
}

/// The result of [`product`].
struct Accumulators {
    low: ValueId,
    high: Option<ValueId>,
    /// The bias, where it could not be added exactly in f32.
    bias: Option<ValueId>,
}

/// How to multiply.
enum Plan {
    /// In f32; the bias too, if true.
    Single(Tensor, bool),
    /// In f32, in two parts: high, low.
    Split(Tensor, Tensor),
    /// In f64.
    Wide,
}

/// `QLinearConv`: x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias.
pub(super) fn qlinear_conv(graph: &mut Graph, id: NodeId) -> Result<()> {
    let v = slots(graph, id, 9)?;
    let attributes = conv_attributes(graph, id);
    let mut emit = Emit { graph, node: id };
    let p = Product {
        op: "Conv",
        attributes,
        x: need(&v, 0)?,
        x_zero: v[2],
        x_axis: 1,
        w: need(&v, 3)?,
        w_zero: v[5],
        w_axis: 0,
        bias: v[8],
    };
    let acc = product(&mut emit, p)?;
    requantize(&mut emit, acc, [v[1], v[4], v[6], v[7]], 1)
}

/// `QLinearMatMul`: a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero.
pub(super) fn qlinear_matmul(graph: &mut Graph, id: NodeId) -> Result<()> {
    let v = slots(graph, id, 8)?;
    let mut emit = Emit { graph, node: id };
    let p = Product {
        op: "MatMul",
        attributes: vec![],
        x: need(&v, 0)?,
        x_zero: v[2],
        x_axis: -2,
        w: need(&v, 3)?,
        w_zero: v[5],
        w_axis: -1,
        bias: None,
    };
    let acc = product(&mut emit, p)?;
    requantize(&mut emit, acc, [v[1], v[4], v[6], v[7]], -1)
}

/// `com.microsoft.QGemm`: a, a_scale, a_zero, b, b_scale, b_zero, bias, y_scale, y_zero. Without `y_scale` the output is f32.
pub(super) fn qgemm(graph: &mut Graph, id: NodeId) -> Result<()> {
    let v = slots(graph, id, 9)?;
    let node = graph.node(id);
    let trans_b = node.int("transB").unwrap_or(0) != 0;
    if node.float("alpha").unwrap_or(1.0) != 1.0 {
        return Err(Error::unsupported("QGemm with alpha"));
    }
    let attributes = ["transA", "transB"].iter().filter_map(|&k| Some((k, node.attribute(k)?.clone()))).collect();
    let mut emit = Emit { graph, node: id };
    let p = Product {
        op: "Gemm",
        attributes,
        x: need(&v, 0)?,
        x_zero: v[2],
        x_axis: -2,
        w: need(&v, 3)?,
        w_zero: v[5],
        w_axis: if trans_b { 0 } else { 1 },
        bias: v[6],
    };
    let acc = product(&mut emit, p)?;
    requantize(&mut emit, acc, [v[1], v[4], v[7], v[8]], -1)
}

/// `ConvInteger`: x, w, x_zero, w_zero.
pub(super) fn conv_integer(graph: &mut Graph, id: NodeId) -> Result<()> {
    let v = slots(graph, id, 4)?;
    let attributes = conv_attributes(graph, id);
    let (x, w) = (need(&v, 0)?, need(&v, 1)?);
    let p = Product { op: "Conv", attributes, x, x_zero: v[2], x_axis: 1, w, w_zero: v[3], w_axis: 0, bias: None };
    integer_result(&mut Emit { graph, node: id }, p)
}

/// `MatMulInteger`: a, b, a_zero, b_zero.
pub(super) fn matmul_integer(graph: &mut Graph, id: NodeId) -> Result<()> {
    let v = slots(graph, id, 4)?;
    let (x, w) = (need(&v, 0)?, need(&v, 1)?);
    let p = Product {
        op: "MatMul",
        attributes: vec![],
        x,
        x_zero: v[2],
        x_axis: -2,
        w,
        w_zero: v[3],
        w_axis: -1,
        bias: None,
    };
    integer_result(&mut Emit { graph, node: id }, p)
}

/// `com.microsoft.MatMulIntegerToFloat`: a, b, a_scale, b_scale, a_zero, b_zero, bias (of the output's type).
pub(super) fn matmul_to_float(graph: &mut Graph, id: NodeId) -> Result<()> {
    let v = slots(graph, id, 7)?;
    let (x, w) = (need(&v, 0)?, need(&v, 1)?);
    float_result(&mut Emit { graph, node: id }, [Some(x), v[2], v[4]], [Some(w), v[3], v[5]], v[6])
}

/// `com.microsoft.DynamicQuantizeMatMul`: a, b, b_scale, b_zero, bias.
pub(super) fn dynamic_matmul(graph: &mut Graph, id: NodeId) -> Result<()> {
    let v = slots(graph, id, 5)?;
    let (x, w) = (need(&v, 0)?, need(&v, 1)?);
    let mut emit = Emit { graph, node: id };
    let [codes, scale, zero] = emit.nodes(DYNAMIC_QUANTIZE, &[Some(x)])?;
    float_result(&mut emit, [Some(codes), Some(scale), Some(zero)], [Some(w), v[2], v[3]], v[4])
}

/// Makes the node the product of two operands (codes, scale, zero point) in float, and the sum with a float bias.
fn float_result(
    emit: &mut Emit,
    [x, x_scale, x_zero]: [Option<ValueId>; 3],
    [w, w_scale, w_zero]: [Option<ValueId>; 3],
    bias: Option<ValueId>,
) -> Result<()> {
    let (x, w) = (need(&[x], 0)?, need(&[w], 0)?);
    let p = Product { op: "MatMul", attributes: vec![], x, x_zero, x_axis: -2, w, w_zero, w_axis: -1, bias: None };
    let acc = product(emit, p)?;
    let inputs = [Some(acc.low), acc.high, None, x_scale, w_scale];
    let axis = [("axis", AttributeValue::Int(-1))];
    let Some(bias) = bias else { return emit.become_op(REQUANTIZE, &inputs, &axis) };
    let product = emit.node(REQUANTIZE, &inputs, &axis)?;
    emit.become_op("Add", &[Some(product), Some(bias)], &[])
}

/// Makes the node the int32 accumulators.
fn integer_result(emit: &mut Emit, p: Product) -> Result<()> {
    let acc = product(emit, p)?;
    let to = [("to", AttributeValue::Int(DType::I32.onnx().into()))];
    let low = acc.low;
    let Some(high) = acc.high else { return emit.become_op("Cast", &[Some(low)], &to) };
    let high = emit.node("Cast", &[Some(high)], &to)?;
    let low = emit.node("Cast", &[Some(low)], &to)?;
    let sixteen = emit.constant("split", Tensor::from_i32(&[], &[Requantize::SPLIT]))?;
    let high = emit.node("Mul", &[Some(high), Some(sixteen)], &[])?;
    emit.become_op("Add", &[Some(high), Some(low)], &[])
}

fn requantize(emit: &mut Emit, acc: Accumulators, scales: [Option<ValueId>; 4], axis: i64) -> Result<()> {
    let [a, b, y, zero] = scales;
    let inputs = [Some(acc.low), acc.high, acc.bias, a, b, y, zero];
    emit.become_op(REQUANTIZE, &inputs, &[("axis", axis.into())])
}

/// Adds the nodes that multiply.
fn product(emit: &mut Emit, p: Product) -> Result<Accumulators> {
    let one = emit.constant("one", Tensor::from_f32(&[], &[1.0]))?;
    let x = emit.node(DEQUANTIZE, &[Some(p.x), Some(one), p.x_zero], &[("axis", p.x_axis.into())])?;
    match plan(emit.graph, &p)? {
        Plan::Single(w, with_bias) => {
            let w = emit.constant("weight", w)?;
            let mut inputs = vec![Some(x), Some(w)];
            let mut bias = p.bias;
            if let Some(b) = bias.filter(|_| with_bias) {
                let values = constant(emit.graph, b).map(|t| t.to_i64()).transpose()?.unwrap_or_default();
                let floats: Vec<f32> = values.iter().map(|&x| x as f32).collect();
                let b = emit.constant("bias", Tensor::from_f32(&[floats.len()], &floats))?;
                inputs.push(Some(b));
                bias = None;
            }
            Ok(Accumulators { low: emit.node(p.op, &inputs, &p.attributes)?, high: None, bias })
        }
        Plan::Split(high, low) => {
            let (high, low) = (emit.constant("high", high)?, emit.constant("low", low)?);
            let high = emit.node(p.op, &[Some(x), Some(high)], &p.attributes)?;
            let low = emit.node(p.op, &[Some(x), Some(low)], &p.attributes)?;
            Ok(Accumulators { low, high: Some(high), bias: p.bias })
        }
        Plan::Wide => {
            let w = emit.node(DEQUANTIZE, &[Some(p.w), Some(one), p.w_zero], &[("axis", p.w_axis.into())])?;
            let to = [("to", AttributeValue::Int(DType::F64.onnx().into()))];
            let (x, w) = (emit.node("Cast", &[Some(x)], &to)?, emit.node("Cast", &[Some(w)], &to)?);
            let low = emit.node(p.op, &[Some(x), Some(w)], &p.attributes)?;
            Ok(Accumulators { low, high: None, bias: p.bias })
        }
    }
}

/// Chooses the cheapest exact way to multiply.
fn plan(graph: &Graph, p: &Product) -> Result<Plan> {
    let Some(w) = constant(graph, p.w) else { return Ok(Plan::Wide) };
    let zero = match p.w_zero {
        None => vec![0],
        Some(z) => match constant(graph, z) {
            Some(z) => z.to_i64()?,
            None => return Ok(Plan::Wide),
        },
    };
    let (dims, elements) = (w.dims.clone(), w.to_i64().context(|| "weight")?);
    let rank = dims.len() as i64;
    let axis = if p.w_axis < 0 { p.w_axis + rank } else { p.w_axis };
    let Some(axis) = usize::try_from(axis).ok().filter(|&a| a < dims.len() && dims.len() > 1) else {
        return Ok(Plan::Wide);
    };
    let inner: usize = dims[axis + 1..].iter().product();
    let channels = dims[axis];
    if zero.len() != 1 && zero.len() != channels {
        return Err(Error::invalid(format!("{} weight zero points for {channels} channels", zero.len())));
    }
    let channel = |i: usize| (i / inner.max(1)) % channels.max(1);
    let centre = |(i, q): (usize, &i64)| q - zero[if zero.len() == 1 { 0 } else { channel(i) }];
    let centred: Vec<i64> = elements.iter().enumerate().map(centre).collect();
    let reach = reach(graph, p)?;
    // Batched weights are summed over the batch too: an overestimate, which is safe.
    let bound = |part: &dyn Fn(i64) -> i64| {
        let mut sums = vec![0f64; channels];
        centred.iter().enumerate().for_each(|(i, &q)| sums[channel(i)] += part(q).unsigned_abs() as f64);
        sums.iter().map(|s| s * reach).collect::<Vec<f64>>()
    };
    let fits = |sums: &[f64], extra: &dyn Fn(usize) -> f64| sums.iter().enumerate().all(|(c, s)| s + extra(c) < EXACT);
    let tensor = |part: &dyn Fn(i64) -> i64| {
        let floats: Vec<f32> = centred.iter().map(|&q| part(q) as f32).collect();
        Tensor::from_f32(&dims, &floats)
    };
    let whole = |q: i64| q;
    let sums = bound(&whole);
    if fits(&sums, &|_| 0.0) {
        let bias = p.bias.and_then(|b| constant(graph, b)).map(|t| t.to_i64()).transpose()?;
        let with_bias = bias.is_some_and(|b| b.len() == channels && fits(&sums, &|c| b[c].unsigned_abs() as f64));
        return Ok(Plan::Single(tensor(&whole), with_bias));
    }
    let split: i64 = Requantize::SPLIT.into();
    let high = |q: i64| (q + split / 2).div_euclid(split);
    let low = |q: i64| q - split * high(q);
    let none = |_: usize| 0.0;
    if fits(&bound(&high), &none) && fits(&bound(&low), &none) {
        return Ok(Plan::Split(tensor(&high), tensor(&low)));
    }
    Ok(Plan::Wide)
}

/// The largest `|x - x_zero|`.
fn reach(graph: &Graph, p: &Product) -> Result<f64> {
    let zeros = match p.x_zero {
        None => Some(Tensor::from_u8(&[1], &[0])), // the type is not known: both 255 and 128 are covered
        Some(z) => constant(graph, z),
    };
    let Some(zeros) = zeros else { return Ok(255.0) };
    let (lo, hi) = match zeros.dtype {
        DType::U8 => (0, 255),
        DType::I8 => (-128, 127),
        _ => (i64::from(i16::MIN), i64::from(u16::MAX)),
    };
    let far = zeros.to_i64()?.into_iter().map(|z| (z - lo).max(hi - z)).max();
    Ok(far.unwrap_or(255) as f64)
}

/// The value of a constant, seen through nothing.
fn constant(graph: &Graph, v: ValueId) -> Option<Tensor> {
    graph.value(v).init.clone()
}

fn conv_attributes(graph: &Graph, id: NodeId) -> Vec<(&'static str, AttributeValue)> {
    let node = graph.node(id);
    CONV.iter().filter_map(|&k| Some((k, node.attribute(k)?.clone()))).collect()
}

fn slots(graph: &Graph, id: NodeId, len: usize) -> Result<Vec<Option<ValueId>>> {
    let mut v = graph.node_inputs(id);
    if v.len() > len {
        return Err(Error::invalid(format!("{} inputs, at most {len} are defined", v.len())));
    }
    v.resize(len, None);
    Ok(v)
}

fn need(v: &[Option<ValueId>], slot: usize) -> Result<ValueId> {
    v[slot].ok_or_else(|| Error::invalid(format!("input {slot} is absent")))
}
