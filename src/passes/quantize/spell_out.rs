//! Integer operators spelled as float operators between QuantizeLinear and DequantizeLinear.

use crate::error::Result;
use crate::ir::{DType, Graph, MICROSOFT, Model, Node, NodeId, OpId, Tensor, TensorType, Type};
use crate::passes::{Effect, Outcome, Pass, PassContext, Patch, Ref};

/// Before: `y = QLinearConv(x, sx, zx, w, sw, zw, sy, zy, b)`. After: `y = QuantizeLinear(Conv(DequantizeLinear(x),
/// DequantizeLinear(w), DequantizeLinear(b)), sy, zy)`; likewise QLinearMatMul, and of ONNX Runtime's operators QGemm,
/// QLinearAdd, QLinearMul, QLinearConcat, the pools and the functions of single elements.
///
/// When: scales and zero points are constants. Why it is equal: it is what the operators are defined as; float sums of
/// products may round another way, which moves a code by one at most.
pub struct SpellOut;

impl Pass for SpellOut {
    fn name(&self) -> &'static str {
        "spell_out_integers"
    }

    fn effect(&self) -> Effect {
        Effect::Lossy
    }

    fn run(&self, model: &mut Model, _: &PassContext) -> Result<Outcome> {
        let (mut patch, mut changes) = (Patch::default(), 0);
        for id in model.graph.order()? {
            changes += usize::from(spell_out(&model.graph, id, &mut patch).is_some());
        }
        patch.apply(&mut model.graph)?;
        Ok(Outcome { changes, ..Outcome::default() })
    }
}

/// Where an operator has what.
struct Form {
    /// The float operator.
    float: &'static str,
    /// Slots of operands, each followed by its scale and zero point.
    operands: Vec<usize>,
    /// Slot of the output's scale, followed by its zero point.
    output: usize,
    /// Which operand is the weight, and the axis of its scales (counted from the end where negative).
    weight: Option<(usize, i64)>,
    /// Slot of the 32-bit bias.
    bias: Option<usize>,
}

fn form(node: &Node, inputs: usize) -> Option<Form> {
    let plain = |float, operands: &[usize], output| {
        Some(Form { float, operands: operands.to_vec(), output, weight: None, bias: None })
    };
    match (&*node.op.domain, &*node.op.op_type) {
        ("", "QLinearConv") => {
            Some(Form { float: "Conv", operands: vec![0, 3], output: 6, weight: Some((1, 0)), bias: Some(8) })
        }
        ("", "QLinearMatMul") => {
            Some(Form { float: "MatMul", operands: vec![0, 3], output: 6, weight: Some((1, -1)), bias: None })
        }
        (MICROSOFT, "QGemm") => {
            let axis = i64::from(node.int("transB").unwrap_or(0) == 0);
            Some(Form { float: "Gemm", operands: vec![0, 3], output: 7, weight: Some((1, axis)), bias: Some(6) })
        }
        (MICROSOFT, "QLinearAdd") => plain("Add", &[0, 3], 6),
        (MICROSOFT, "QLinearMul") => plain("Mul", &[0, 3], 6),
        (MICROSOFT, "QLinearLeakyRelu") => plain("LeakyRelu", &[0], 3),
        (MICROSOFT, "QLinearSigmoid") => plain("Sigmoid", &[0], 3),
        (MICROSOFT, "QLinearSoftmax") => plain("Softmax", &[0], 3),
        // With channels last there is no float operator.
        (MICROSOFT, "QLinearGlobalAveragePool" | "QLinearAveragePool") if node.int("channels_last") == Some(1) => None,
        (MICROSOFT, "QLinearGlobalAveragePool") => plain("GlobalAveragePool", &[0], 3),
        (MICROSOFT, "QLinearAveragePool") => plain("AveragePool", &[0], 3),
        (MICROSOFT, "QLinearConcat") => plain("Concat", &(2..inputs).step_by(3).collect::<Vec<_>>(), 0),
        _ => None,
    }
}

fn spell_out(graph: &Graph, id: NodeId, patch: &mut Patch) -> Option<()> {
    let old = graph.node(id);
    let inputs = graph.node_inputs(id);
    let form = form(old, inputs.len())?;
    let at = |slot: usize| inputs.get(slot).copied().flatten();
    let constant = |slot: usize| at(slot).and_then(|v| graph.constant(v));
    let scales = form.operands.iter().map(|&slot| constant(slot + 1)).collect::<Option<Vec<&Tensor>>>()?;
    let node = |op: &str| Node { rank: old.rank, ..Node::new(OpId::onnx(op)) };
    let float_type = |shape| Some(Type::Tensor(TensorType { elem: DType::F32, shape }));
    let mut operands: Vec<Option<Ref>> = vec![];
    for (k, &slot) in form.operands.iter().enumerate() {
        let x = at(slot)?;
        let mut dequantize = node("DequantizeLinear");
        if let Some((_, axis)) = form.weight.filter(|(w, _)| *w == k && scales[k].len() > 1) {
            dequantize.set("axis", axis.into());
        }
        let from = [Some(x.into()), at(slot + 1).map(Into::into), at(slot + 2).map(Into::into)];
        let ty = graph.ty(x).and_then(Type::as_tensor).and_then(|t| float_type(t.shape.clone()));
        operands.push(Some(patch.node(dequantize, &from, &format!("{}_dequantized", graph.name(x)), ty)));
    }
    if let Some(b) = form.bias.and_then(at) {
        let (x, w) = (scales[0].scalar_f32()?, scales[1].to_f32().ok()?);
        let dims: &[usize] = if w.len() == 1 { &[] } else { &[w.len()] };
        let scale: Vec<f32> = w.iter().map(|w| w * x).collect();
        let scale = patch.constant(&format!("{}_s", graph.name(b)), Tensor::from_f32(dims, &scale));
        let mut dequantize = node("DequantizeLinear");
        dequantize.set("axis", 0i64.into());
        operands.push(Some(patch.node(
            dequantize,
            &[Some(b.into()), Some(scale)],
            &format!("{}_dequantized", graph.name(b)),
            None,
        )));
    }
    let y = graph.output(id, 0)?;
    let mut float = node(form.float);
    float.name = old.name.clone();
    float.attributes =
        old.attributes.iter().filter(|a| !matches!(&*a.name, "channels_last" | "opset")).cloned().collect();
    let shape = graph.ty(y).and_then(Type::as_tensor).map(|t| t.shape.clone());
    let result = patch.node(float, &operands, &format!("{}_float", graph.name(y)), shape.and_then(float_type));
    let new = match (at(form.output), at(form.output + 1)) {
        (Some(scale), zero) => {
            let from = [Some(result), Some(scale.into()), zero.map(Into::into)];
            patch.node(node("QuantizeLinear"), &from, graph.name(y), graph.ty(y).cloned())
        }
        // QGemm without them makes floats.
        _ => result,
    };
    patch.replace(y, new);
    Some(())
}
