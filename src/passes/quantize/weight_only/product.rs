//! Weights of layers: DequantizeLinear in front of the layer, or MatMulNBits in its place.

use super::super::options::Runtime;
use super::super::rounding::{Rounded, unrows};
use super::emit::Emitter;
use super::pack::{pack, tensor};
use super::plan::PlannedWeight;
use crate::error::Result;
use crate::ir::{DType, Node, NodeId, OpId, Tensor, Type};
use crate::passes::Ref;

pub(super) fn write(e: &mut Emitter, w: &PlannedWeight, rounded: &Rounded) -> Result<()> {
    let bias = e.bias(w);
    let own = w.correction.as_ref().filter(|(site, _)| w.uses.contains(&site.node));
    if e.options.runtime == Runtime::Ort && w.uses.iter().all(|&id| takes_nbits(e, w, id)) {
        return nbits(e, w, rounded, bias.filter(|_| own.is_some()));
    }
    let float = if by_cast(e, w) { cast(e, w, rounded) } else { dequantized(e, w, rounded) };
    for &id in &w.uses {
        e.patch.set_input(id, w.role.slot, Some(float));
    }
    if let (Some((site, _)), Some(bias)) = (own, bias) {
        e.patch.set_input(site.node, site.slot, Some(bias));
    }
    Ok(())
}

/// Whether the weight is widened and scaled by Cast and Mul: what a MatMul of 8 bits per channel takes. ONNX Runtime would
/// round the inputs of a MatMul behind a DequantizeLinear to 8 bits too; a Cast and a Mul of constants it computes once.
fn by_cast(e: &Emitter, w: &PlannedWeight) -> bool {
    let matmul = w.uses.iter().all(|&id| e.graph.node(id).op.is("MatMul"));
    let scaled = w.levels.zero == Some(0) && w.block.is_none() && w.role.channel_axis + 1 == w.dims.len();
    matmul && scaled && e.options.weight_bits == 8
}

/// The weight as Cast and Mul.
fn cast(e: &mut Emitter, w: &PlannedWeight, rounded: &Rounded) -> Ref {
    let codes = unrows(&rounded.codes, &w.dims, w.role.channel_axis);
    let (q, s) = (e.name(w, "q"), e.name(w, "s"));
    let codes = e.patch.constant(&q, tensor(&codes, &w.dims, true, false));
    let scale = e.patch.constant(&s, Tensor::from_f32(&[rounded.grid.scale.len()], &rounded.grid.scale));
    let ty = Some(Type::tensor(DType::F32, &w.dims));
    let mut node = e.node_for(w, "Cast");
    node.set("to", i64::from(DType::F32.onnx()).into());
    let hint = e.name(w, "codes");
    let wide = e.patch.node(node, &[Some(codes)], &hint, ty.clone());
    let (node, hint) = (e.node_for(w, "Mul"), e.name(w, "dequantized"));
    e.patch.node(node, &[Some(wide), Some(scale)], &hint, ty)
}

/// The weight in the standard's spelling: per axis, or in blocks of one axis.
fn dequantized(e: &mut Emitter, w: &PlannedWeight, rounded: &Rounded) -> Ref {
    let (axis, few) = (w.role.channel_axis, e.options.weight_bits < 8);
    let signed = w.levels.low < 0;
    let codes = unrows(&rounded.codes, &w.dims, axis);
    let scale_dims = if w.block.is_some() { w.scale_dims() } else { vec![w.dims[axis]] };
    let scale_axis = if w.block.is_some() { axis } else { 0 };
    let zero: Vec<i16> = rounded.grid.zero.iter().map(|&z| z as i16).collect();
    let (q, s, z) = (e.name(w, "q"), e.name(w, "s"), e.name(w, "z"));
    let scale = unrows(&rounded.grid.scale, &scale_dims, scale_axis);
    let mut inputs = vec![
        Some(e.patch.constant(&q, tensor(&codes, &w.dims, signed, few))),
        Some(e.patch.constant(&s, Tensor::from_f32(&scale_dims, &scale))),
    ];
    if zero.iter().any(|&z| z != 0) {
        let zero = unrows(&zero, &scale_dims, scale_axis);
        inputs.push(Some(e.patch.constant(&z, tensor(&zero, &scale_dims, signed, few))));
    }
    let mut node = e.node_for(w, "DequantizeLinear");
    match w.block {
        Some(block) => {
            node.set("axis", (w.role.block_axis as i64).into());
            node.set("block_size", (block as i64).into());
        }
        None => node.set("axis", (axis as i64).into()),
    }
    let hint = e.name(w, "dequantized");
    e.patch.node(node, &inputs, &hint, Some(Type::tensor(DType::F32, &w.dims)))
}

/// Whether ONNX Runtime's MatMulNBits computes the node: a product with a weight of few bits, and at most a bias of one
/// element per output. 8 bits per channel are as fast from DequantizeLinear, which more runtimes know.
fn takes_nbits(e: &Emitter, w: &PlannedWeight, id: NodeId) -> bool {
    let node = e.graph.node(id);
    if w.dims.len() != 2 || (e.options.weight_bits == 8 && w.block.is_none()) {
        return false;
    }
    if node.op.is("MatMul") {
        return true;
    }
    let plain = |name: &str| node.float(name).unwrap_or(1.0) == 1.0;
    let outputs = w.dims[w.role.channel_axis];
    let fits = |t: &Tensor| t.len() == outputs && t.dims.last() == Some(&outputs);
    let bias = e.graph.input(id, 2);
    let fits = bias.is_none_or(|b| e.graph.constant(b).is_some_and(fits));
    node.op.is("Gemm") && node.int("transA").unwrap_or(0) == 0 && plain("alpha") && plain("beta") && fits
}

/// Block size of MatMulNBits for a weight with one scale per channel: a large one that divides the columns, so that none is
/// padded; scales are repeated.
fn block_of(columns: usize) -> usize {
    [256, 128, 64, 32].into_iter().find(|b| columns.is_multiple_of(*b)).unwrap_or(16)
}

fn nbits(e: &mut Emitter, w: &PlannedWeight, rounded: &Rounded, corrected: Option<Ref>) -> Result<()> {
    let columns = w.columns();
    let bits = match e.options.weight_bits {
        3 => 4,
        bits => usize::from(bits),
    };
    let half = 1i16 << (bits - 1);
    // Stored codes are unsigned; signed ones move up, and their zero with them.
    let up = if w.levels.low < 0 { half } else { 0 };
    let block = w.block.unwrap_or_else(|| block_of(columns));
    let blocks = columns.div_ceil(block);
    let (mut blob, mut scales, mut zeros) = (vec![], vec![], vec![]);
    let mut plain = true;
    for (row, codes) in rounded.codes.chunks(columns.max(1)).enumerate() {
        let (scale, zero) = rounded.grid.row(row);
        let of = |b: usize| if w.block.is_some() { b } else { 0 };
        let mut row_zeros = vec![];
        for (b, codes) in codes.chunks(block).enumerate() {
            let zero = zero[of(b)] as i16 + up;
            let mut codes: Vec<i16> = codes.iter().map(|c| c + up).collect();
            codes.resize(block, zero);
            blob.extend(pack(&codes, bits));
            scales.push(scale[of(b)]);
            row_zeros.push(zero);
            plain &= zero == half;
        }
        zeros.extend(pack(&row_zeros, bits));
    }
    let rows = w.dims[w.role.channel_axis];
    let (q, s, z) = (e.name(w, "q"), e.name(w, "s"), e.name(w, "z"));
    let blob = e.patch.constant(&q, Tensor::raw(DType::U8, &[rows, blocks, block * bits / 8], blob));
    let scale = e.patch.constant(&s, Tensor::from_f32(&[rows, blocks], &scales));
    // Absent zero points are in the middle.
    let zero_dims = [rows, (blocks * bits).div_ceil(8)];
    let zero = (!plain).then(|| e.patch.constant(&z, Tensor::raw(DType::U8, &zero_dims, zeros)));
    for &id in &w.uses {
        let old = e.graph.node(id);
        let mut node = Node::new(OpId::microsoft("MatMulNBits"));
        node.name = old.name.clone();
        for (name, value) in [("K", columns), ("N", rows), ("bits", bits), ("block_size", block)] {
            node.set(name, (value as i64).into());
        }
        let mut inputs = vec![e.graph.input(id, 0).map(Ref::Old), Some(blob), Some(scale), zero];
        let bias = if old.op.is("Gemm") { corrected.or_else(|| e.graph.input(id, 2).map(Ref::Old)) } else { None };
        if let Some(bias) = bias {
            inputs.extend([None, Some(vector(e, bias, rows))]);
        }
        while inputs.last() == Some(&None) {
            inputs.pop();
        }
        e.patch.replace_node(e.graph, id, node, &inputs);
    }
    Ok(())
}

/// A bias as the vector that MatMulNBits wants.
fn vector(e: &mut Emitter, bias: Ref, rows: usize) -> Ref {
    let Ref::Old(v) = bias else { return bias };
    match e.graph.constant(v) {
        Some(t) if t.dims != [rows] => {
            let flat = Tensor { dims: vec![rows], ..t.clone() };
            e.patch.constant(e.graph.name(v), flat)
        }
        _ => bias,
    }
}
