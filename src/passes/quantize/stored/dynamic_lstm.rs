//! LSTM as ONNX Runtime computes it in 8 bits.

use super::super::options::{Precision, QuantizeOptions, Runtime};
use super::super::selection::Selection;
use super::rows::{Rows, quantize_rows};
use crate::error::Result;
use crate::ir::{DType, Graph, Node, NodeId, OpId, Tensor};
use crate::ops::spec::{OpKey, onnx};
use crate::passes::{Effect, Patch, Rewrite, RuleContext};

/// Before: `y = LSTM(x, w, r, b, ...)`. After: `y = com.microsoft.DynamicQuantizeLSTM(x, w_q, r_q, b, ..., scales, zero
/// points)`, which multiplies in integers and rounds inputs and state to 8 bits as it runs.
///
/// When: the caller writes for ONNX Runtime and wants the layer in 8 bits; both weights are f32 constants that nothing
/// else uses; the sequence is the first axis (the operator has no `layout`).
/// Loss: each weight is rounded to one of 255 levels of its row, each input and state to one of 256 of its range.
pub struct DynamicLstm {
    options: QuantizeOptions,
    selection: Selection,
}

impl DynamicLstm {
    /// The rule; it fires only with [`Runtime::Ort`].
    ///
    /// # Errors
    /// An invalid pattern.
    pub fn new(options: &QuantizeOptions) -> Result<Self> {
        Ok(Self { options: options.clone(), selection: Selection::new(options)? })
    }
}

impl Rewrite for DynamicLstm {
    fn name(&self) -> &'static str {
        "dynamic_lstm"
    }

    fn effect(&self) -> Effect {
        Effect::Lossy
    }

    fn roots(&self) -> &'static [OpKey] {
        const { &[onnx("LSTM")] }
    }

    fn rewrite(&self, graph: &Graph, id: NodeId, _: &RuleContext) -> Result<Option<Patch>> {
        let node = graph.node(id);
        let precision = self.selection.precision(node);
        let wanted = self.options.runtime == Runtime::Ort
            && self.selection.refuses(node).is_none()
            && precision.is_none_or(|p| p == Precision::Eight);
        if !wanted || node.int("layout").unwrap_or(0) != 0 {
            return Ok(None);
        }
        let mut new = Node::new(OpId::microsoft("DynamicQuantizeLSTM"));
        new.name = node.name.clone();
        new.attributes = node.attributes.iter().filter(|a| &*a.name != "layout").cloned().collect();
        let mut inputs: Vec<_> = graph.node_inputs(id).into_iter().map(|v| v.map(Into::into)).collect();
        inputs.resize(8, None);
        let mut patch = Patch::default();
        for slot in [1, 2] {
            let Some(v) = graph.input(id, slot).filter(|&v| graph.only_use(v).is_some()) else { return Ok(None) };
            let Some(t) = graph.constant(v).filter(|t| t.dtype == DType::F32 && !t.is_empty()) else { return Ok(None) };
            let [directions, width, columns] = t.dims[..] else { return Ok(None) };
            if new.int("hidden_size").is_none() {
                new.set("hidden_size", ((width / 4) as i64).into());
            }
            let name = graph.name(v);
            let rows = Rows { count: directions * width, axis: Some(0), flat: true, inner: columns };
            let q = quantize_rows(t, &rows, self.options.weights)?;
            let codes = swapped(&q.data, [directions, width, columns])?;
            inputs[slot] = Some(patch.constant(&format!("{name}_q"), codes));
            let zero = vec![q.zero_point as u8; rows.count];
            let dims = [directions, width];
            inputs.push(Some(patch.constant(&format!("{name}_s"), Tensor::from_f32(&dims, &q.scale))));
            inputs.push(Some(patch.constant(&format!("{name}_zp"), Tensor::raw(q.data.dtype, &dims, zero))));
        }
        patch.replace_node(graph, id, new, &inputs);
        Ok(Some(patch))
    }
}

/// 8-bit elements with the last two axes exchanged.
fn swapped(t: &Tensor, [directions, width, columns]: [usize; 3]) -> Result<Tensor> {
    let bytes = t.bytes()?;
    let mut out = Vec::with_capacity(bytes.len());
    for d in 0..directions {
        for c in 0..columns {
            out.extend((0..width).map(|k| bytes[(d * width + k) * columns + c]));
        }
    }
    Ok(Tensor::raw(t.dtype, &[directions, columns, width], out))
}
