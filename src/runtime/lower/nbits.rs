//! ONNX Runtime's operators on weights of few bits in blocks (domain com.microsoft), as the float operator on the
//! dequantized weight: that is their definition (`accuracy_level` lets ONNX Runtime round the input too; it is not followed).

use super::emit::Emit;
use crate::error::{Error, Result};
use crate::ir::{DType, Graph, NodeId, Tensor, ValueId};

/// Whether the operator is one of those.
pub(super) fn knows(op_type: &str) -> bool {
    matches!(op_type, "MatMulNBits" | "GatherBlockQuantized")
}

/// Why the node cannot run, if it cannot: weights must be constant.
pub(super) fn reason(graph: &Graph, id: NodeId) -> Option<String> {
    let weights: &[usize] = if &*graph.node(id).op.op_type == "MatMulNBits" { &[1, 2, 3, 4] } else { &[0, 2, 3] };
    let fed = |&&slot: &&usize| graph.input(id, slot).is_some_and(|v| graph.value(v).init.is_none());
    weights.iter().find(fed).map(|slot| format!("input {slot} is not a constant"))
}

fn constant(graph: &Graph, id: NodeId, slot: usize) -> Result<Option<Tensor>> {
    let Some(v) = graph.input(id, slot) else { return Ok(None) };
    let found = graph.value(v).init.clone();
    found.map(Some).ok_or_else(|| Error::unsupported(format!("input {slot} is not a constant")))
}

fn required(graph: &Graph, id: NodeId, slot: usize) -> Result<Tensor> {
    constant(graph, id, slot)?.ok_or_else(|| Error::invalid(format!("input {slot} is absent")))
}

fn size(graph: &Graph, id: NodeId, name: &str, default: i64) -> Result<usize> {
    let value = graph.node(id).int(name).unwrap_or(default);
    let positive = usize::try_from(value).ok().filter(|&n| n > 0);
    positive.ok_or_else(|| Error::invalid(format!("attribute \"{name}\" is {value}")))
}

/// Rows of codes of `bits` bits, the first in the low bits; each row starts with a byte of its own.
struct Codes {
    bytes: Vec<u8>,
    bits: usize,
    row: usize,
}

impl Codes {
    fn new(bytes: Vec<u8>, bits: usize, row: usize) -> Result<Self> {
        if !matches!(bits, 2 | 4 | 8) {
            return Err(Error::unsupported(format!("weights of {bits} bits")));
        }
        Ok(Self { bytes, bits, row })
    }

    fn at(&self, row: usize, k: usize) -> u8 {
        let per_byte = 8 / self.bits;
        let byte = self.bytes[row * self.row + k / per_byte];
        (byte >> (self.bits * (k % per_byte))) & (0xff >> (8 - self.bits))
    }
}

/// `MatMulNBits`: a, b `[N, blocks, bytes]`, scales `[N, blocks]`, zero points `[N, packed blocks]`, g_idx, bias.
pub(super) fn matmul(graph: &mut Graph, id: NodeId) -> Result<()> {
    let (k, n) = (size(graph, id, "K", 0)?, size(graph, id, "N", 0)?);
    let (bits, block) = (size(graph, id, "bits", 4)?, size(graph, id, "block_size", 0)?);
    if graph.input(id, 4).is_some() {
        return Err(Error::unsupported("MatMulNBits with g_idx"));
    }
    let blocks = k.div_ceil(block);
    let codes = required(graph, id, 1)?;
    let bytes = (block * bits).div_ceil(8);
    if codes.dtype != DType::U8 || codes.len() != n * blocks * bytes {
        return Err(Error::invalid(format!("a weight of shape {:?} for {n} x {blocks} blocks", codes.dims)));
    }
    let codes = Codes::new(codes.bytes()?.into_owned(), bits, blocks * bytes)?;
    let scales = required(graph, id, 2)?.to_f32()?;
    let zeros = match constant(graph, id, 3)? {
        None => None,
        Some(z) if z.dtype == DType::U8 && z.len() == n * (blocks * bits).div_ceil(8) => {
            Some(Codes::new(z.bytes()?.into_owned(), bits, (blocks * bits).div_ceil(8))?)
        }
        Some(z) => return Err(Error::unsupported(format!("zero points of {} and shape {:?}", z.dtype, z.dims))),
    };
    if scales.len() != n * blocks {
        return Err(Error::invalid(format!("{} scales for {n} x {blocks} blocks", scales.len())));
    }
    let zero = |row: usize, b: usize| zeros.as_ref().map_or(1 << (bits - 1), |z| i32::from(z.at(row, b)));
    let mut weight = vec![0f32; k * n];
    for (row, k) in (0..n).flat_map(|row| (0..k).map(move |k| (row, k))) {
        let b = k / block;
        let code = i32::from(codes.at(row, k)) - zero(row, b);
        weight[k * n + row] = scales[row * blocks + b] * code as f32;
    }
    let (x, bias) = (graph.input(id, 0), graph.input(id, 5));
    let mut emit = Emit { graph, node: id };
    let weight = emit.constant("weight", Tensor::from_f32(&[k, n], &weight))?;
    let Some(bias) = bias else { return emit.become_op("MatMul", &[x, Some(weight)], &[]) };
    let product = emit.node("MatMul", &[x, Some(weight)], &[])?;
    emit.become_op("Add", &[Some(product), Some(bias)], &[])
}

/// `GatherBlockQuantized`: data, indices, scales, zero points. Blocks run along the last axis.
pub(super) fn gather(graph: &mut Graph, id: NodeId) -> Result<()> {
    let block = size(graph, id, "block_size", 128)?;
    let data = required(graph, id, 0)?;
    let rank = data.dims.len() as i64;
    let axis = |name: &str, default: i64| {
        let axis = graph.node(id).int(name).unwrap_or(default);
        if axis < 0 { axis + rank } else { axis }
    };
    let (picked, blocked) = (axis("gather_axis", 0), axis("quantize_axis", 1));
    if blocked != rank - 1 || !(0..rank - 1).contains(&picked) {
        return Err(Error::unsupported(format!("blocks along axis {blocked} of {rank}, picking along axis {picked}")));
    }
    let (bits, signed) = match data.dtype {
        DType::U8 => (size(graph, id, "bits", 4)?, false),
        DType::U4 => (4, false),
        DType::I4 => (4, true),
        other => return Err(Error::unsupported(format!("GatherBlockQuantized of {other}"))),
    };
    let mut dims = data.dims.clone();
    let stored = dims.last().copied().unwrap_or(0);
    let columns = if data.dtype == DType::U8 { stored * 8 / bits } else { stored };
    if columns * bits % 8 != 0 {
        return Err(Error::unsupported(format!("rows of {columns} elements of {bits} bits")));
    }
    if let Some(last) = dims.last_mut() {
        *last = columns;
    }
    let rows: usize = dims[..dims.len() - 1].iter().product();
    let blocks = columns.div_ceil(block);
    let codes = Codes::new(data.bytes()?.into_owned(), bits, columns * bits / 8)?;
    let scales = required(graph, id, 2)?.to_f32()?;
    let zeros = constant(graph, id, 3)?;
    let width = (blocks * bits).div_ceil(8);
    let packed = match &zeros {
        None => None,
        Some(z) if z.dtype == DType::U8 && z.len() == rows * width => {
            Some(Codes::new(z.bytes()?.into_owned(), bits, width)?)
        }
        Some(z) if z.dtype == data.dtype && z.len() == rows * blocks && blocks * bits % 8 == 0 => {
            Some(Codes::new(z.bytes()?.into_owned(), bits, width)?)
        }
        Some(z) => return Err(Error::unsupported(format!("zero points of {} and shape {:?}", z.dtype, z.dims))),
    };
    if scales.len() != rows * blocks {
        return Err(Error::invalid(format!("{} scales for {rows} x {blocks} blocks", scales.len())));
    }
    let sign = |code: u8| if signed { i32::from((code << 4) as i8 >> 4) } else { i32::from(code) };
    // Bytes are centred, types of 4 bits are not.
    let middle = if data.dtype == DType::U8 { 1 << (bits - 1) } else { 0 };
    let mut table = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for k in 0..columns {
            let b = k / block;
            let zero = packed.as_ref().map_or(middle, |z| sign(z.at(row, b)));
            table.push(scales[row * blocks + b] * (sign(codes.at(row, k)) - zero) as f32);
        }
    }
    let indices: Option<ValueId> = graph.input(id, 1);
    let mut emit = Emit { graph, node: id };
    let table = emit.constant("table", Tensor::from_f32(&dims, &table))?;
    emit.become_op("Gather", &[Some(table), indices], &[("axis", picked.into())])
}
