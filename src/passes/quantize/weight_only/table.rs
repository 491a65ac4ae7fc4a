//! Tables of embeddings: the codes of the wanted rows are picked and dequantized, never the whole table.

use super::super::options::Runtime;
use super::super::rounding::Rounded;
use super::emit::Emitter;
use super::pack::pack;
use super::plan::PlannedWeight;
use crate::error::{Error, Result};
use crate::ir::{AttributeValue, DType, Dim, Node, NodeId, OpId, Tensor, TensorType, Type};
use crate::ops::spec::Purpose;
use crate::passes::Ref;

/// What all uses of a table share.
struct Table {
    columns: usize,
    groups: usize,
    block: usize,
    codes: Ref,
    scale: Ref,
    zero: Option<Ref>,
    /// Two codes in each byte: the first half of a row in the low bits, the second in the high ones.
    halves: bool,
}

pub(super) fn write(e: &mut Emitter, w: &PlannedWeight, rounded: &Rounded) -> Result<()> {
    let Purpose::Table { indices } = w.role.purpose else { return Err(Error::internal("a table of no rows")) };
    let [rows, columns] = w.dims[..] else { return Err(Error::internal("a table that is no matrix")) };
    let few = e.options.weight_bits < 8;
    // ONNX Runtime's own operator packs neighbours; blocks must suit it.
    let block = w.block.unwrap_or(columns);
    let own = few && e.options.runtime == Runtime::Ort && block.is_power_of_two() && block >= 16 && columns % 2 == 0;
    let halves = few && !own && columns % 2 == 0;
    let groups = rounded.grid.groups;
    let (q, s, z) = (e.name(w, "q"), e.name(w, "s"), e.name(w, "z"));
    let bytes = match (own, halves) {
        (true, _) => pack(&rounded.codes, 4),
        (_, true) => in_halves(&rounded.codes, columns),
        _ => pack(&rounded.codes, 8),
    };
    let width = bytes.len() / rows.max(1);
    let dtype = if w.levels.low < 0 { DType::I8 } else { DType::U8 };
    let codes = e.patch.constant(&q, Tensor::raw(dtype, &[rows, width], bytes));
    let scale = e.patch.constant(&s, Tensor::from_f32(&[rows, groups], &rounded.grid.scale));
    let zero = rounded.grid.zero.iter().any(|&z| z != 0).then(|| {
        let zero: Vec<i16> = rounded.grid.zero.iter().map(|&z| z as i16).collect();
        let packed: Vec<u8> =
            if own { zero.chunks(groups).flat_map(|row| pack(row, 4)).collect() } else { pack(&zero, 8) };
        e.patch.constant(&z, Tensor::raw(dtype, &[rows, packed.len() / rows.max(1)], packed))
    });
    let table = Table { columns, groups, block, codes, scale, zero, halves };
    for &id in &w.uses {
        let index = e.graph.input(id, indices).ok_or_else(|| Error::internal("a table without indices"))?;
        let y = e.graph.output(id, 0).ok_or_else(|| Error::internal("a node without an output"))?;
        let ty = e.graph.ty(y).cloned();
        let float = if own {
            let mut node = e.graph.node(id).clone();
            (node.op, node.attributes, node.shell) = (OpId::microsoft("GatherBlockQuantized"), vec![], None);
            for (name, value) in [("gather_axis", 0), ("quantize_axis", 1), ("bits", 4), ("block_size", block)] {
                node.set(name, (value as i64).into());
            }
            let mut inputs = vec![Some(table.codes), Some(index.into()), Some(table.scale)];
            inputs.extend(table.zero.map(Some));
            e.patch.node(node, &inputs, e.graph.name(y), ty)
        } else {
            portable(e, w, id, &table, index.into())
        };
        e.patch.replace(y, float);
    }
    Ok(())
}

/// The codes of a row as bytes of two: those of the first half low, those of the second high.
fn in_halves(codes: &[i16], columns: usize) -> Vec<u8> {
    let half = columns / 2;
    let row = |codes: &[i16]| -> Vec<u8> {
        codes[..half].iter().zip(&codes[half..]).map(|(&low, &high)| (low | high << 4) as u8).collect()
    };
    codes.chunks(columns).flat_map(row).collect()
}

/// Gathers codes, scales and zero points of the wanted rows, and dequantizes them.
fn portable(e: &mut Emitter, w: &PlannedWeight, id: NodeId, table: &Table, index: Ref) -> Ref {
    let y = e.graph.output(id, 0);
    let name = y.map_or_else(String::new, |y| e.graph.name(y).to_string());
    let ty = y.and_then(|y| e.graph.ty(y).cloned());
    let lead = ty.as_ref().and_then(Type::shape).and_then(|s| s.split_last()).map(|(_, lead)| lead.to_vec());
    let rank = e.graph.node(id).rank;
    let mut chain = Chain { e, rank, name, lead };
    let dtype = if w.levels.low < 0 { DType::I8 } else { DType::U8 };
    let width = if table.halves { table.columns / 2 } else { table.columns };
    let mut codes = chain.add("Gather", &[table.codes, index], &[], "q", dtype, width);
    let scale = chain.add("Gather", &[table.scale, index], &[], "s", DType::F32, table.groups);
    if table.zero.is_none() && table.groups == 1 {
        let to = [("to", i64::from(DType::F32.onnx()).into())];
        let float = chain.add("Cast", &[codes], &to, "codes", DType::F32, width);
        return chain.add("Mul", &[float, scale], &[], "float", DType::F32, table.columns);
    }
    let zero = table.zero.map(|zero| chain.add("Gather", &[zero, index], &[], "z", dtype, table.groups));
    if table.halves {
        let nibble = chain.e.patch.constant("nibble", Tensor::from_u8(&[], &[15]));
        let four = chain.e.patch.constant("four", Tensor::from_u8(&[], &[4]));
        let low = chain.add("BitwiseAnd", &[codes, nibble], &[], "low", dtype, width);
        let right = [("direction", "RIGHT".into())];
        let high = chain.add("BitShift", &[codes, four], &right, "high", dtype, width);
        codes = chain.add("Concat", &[low, high], &[("axis", (-1i64).into())], "codes", dtype, table.columns);
    }
    let blocks = [("axis", (-1i64).into()), ("block_size", (table.block as i64).into())];
    let inputs: Vec<Ref> = [codes, scale].into_iter().chain(zero).collect();
    chain.add("DequantizeLinear", &inputs, &blocks, "float", DType::F32, table.columns)
}

/// Nodes in the place of one Gather.
struct Chain<'e, 'g> {
    e: &'e mut Emitter<'g>,
    rank: u32,
    /// Name of the Gather's output.
    name: String,
    /// Shape of the indices, where it is known.
    lead: Option<Vec<Dim>>,
}

impl Chain<'_, '_> {
    /// A node whose output has `width` elements for each index.
    fn add(
        &mut self,
        op: &str,
        inputs: &[Ref],
        attributes: &[(&str, AttributeValue)],
        hint: &str,
        elem: DType,
        width: usize,
    ) -> Ref {
        let mut node = Node::new(OpId::onnx(op));
        node.rank = self.rank;
        attributes.iter().for_each(|(k, v)| node.set(k, v.clone()));
        let inputs: Vec<Option<Ref>> = inputs.iter().copied().map(Some).collect();
        let shape = self.lead.clone().map(|lead| [lead, vec![Dim::Known(width as i64)]].concat());
        let ty = Type::Tensor(TensorType { elem, shape });
        self.e.patch.node(node, &inputs, &format!("{}_{hint}", self.name), Some(ty))
    }
}
