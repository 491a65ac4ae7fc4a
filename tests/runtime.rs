//! What raw tract gets wrong, or lacks, comes out right.

use sardonyx::io::{Feed, model_from_proto, tensor_to_proto};
use sardonyx::ir::{DType, Tensor, Type};
use sardonyx::proto;
use sardonyx::runtime::{RunOutput, Runner, RunnerOptions};

fn info(name: &str, dtype: DType, dims: &[usize]) -> proto::ValueInfoProto {
    let ty = Some(Type::tensor(dtype, dims).to_proto());
    proto::ValueInfoProto { name: Some(name.into()), r#type: ty, ..Default::default() }
}

fn node(op: &str, inputs: &[&str], output: &str) -> proto::NodeProto {
    let input = inputs.iter().map(|s| s.to_string()).collect();
    proto::NodeProto { op_type: Some(op.into()), input, output: vec![output.into()], ..Default::default() }
}

/// Runs `nodes` on `x`; the value `y` is the graph output, and `observe` comes after it.
fn run(nodes: Vec<proto::NodeProto>, constants: &[(&str, Tensor)], x: &Tensor, observe: &[&str]) -> Vec<RunOutput> {
    let graph = proto::GraphProto {
        node: nodes,
        initializer: constants.iter().map(|(n, t)| tensor_to_proto(t, Some(n.to_string()))).collect(),
        input: vec![info("x", x.dtype, &x.dims)],
        output: vec![proto::ValueInfoProto { name: Some("y".into()), ..Default::default() }],
        ..Default::default()
    };
    let opset_import = vec![proto::OperatorSetIdProto { domain: None, version: Some(17) }];
    let message = proto::ModelProto { graph: Some(graph), opset_import, ir_version: Some(8), ..Default::default() };
    let model = model_from_proto(message).unwrap();
    let options = RunnerOptions { observe: observe.iter().map(|s| s.to_string()).collect() };
    Runner::new(&model, &options).unwrap().run(&Feed::from([("x".to_string(), x.clone())])).unwrap()
}

#[test]
fn softmax_between_dequantize_and_quantize_is_a_softmax() {
    let constants = [
        ("s", Tensor::from_f32(&[], &[0.1])),
        ("z", Tensor::from_u8(&[], &[0])),
        ("t", Tensor::from_f32(&[], &[0.01])),
    ];
    let nodes = vec![
        node("DequantizeLinear", &["x", "s", "z"], "d"),
        node("Softmax", &["d"], "p"),
        node("QuantizeLinear", &["p", "t", "z"], "y"),
    ];
    let out = run(nodes, &constants, &Tensor::from_u8(&[1, 4], &[0, 10, 20, 30]), &["p"]);
    assert_eq!(out[0].to_tensor().unwrap(), Tensor::from_u8(&[1, 4], &[3, 9, 24, 64]));
    assert!((out[1].as_f32().unwrap()[3] - 0.643_914).abs() < 1e-5);
}

#[test]
fn qlinear_matmul_is_exact_where_f32_sums_would_not_be() {
    // 300 * 255 * 255 > 2^24, so the weight is split; one odd product at the end would be lost in f32.
    let k = 300;
    let mut w = vec![255u8; k];
    w[k - 1] = 254;
    let constants = [
        ("one", Tensor::from_f32(&[], &[1.0])),
        ("z", Tensor::from_u8(&[], &[0])),
        ("w", Tensor::from_u8(&[k, 1], &w)),
        ("ys", Tensor::from_f32(&[], &[1.0])),
    ];
    let x = Tensor::from_u8(&[1, k], &vec![255u8; k]);
    let integer = run(vec![node("MatMulInteger", &["x", "w"], "y")], &constants, &x, &[]);
    assert_eq!(integer[0].to_tensor().unwrap(), Tensor::from_i32(&[1, 1], &[299 * 255 * 255 + 254 * 255]));
    let nodes = vec![node("QLinearMatMul", &["x", "one", "z", "w", "one", "z", "ys", "z"], "y")];
    assert_eq!(run(nodes, &constants, &x, &[])[0].to_tensor().unwrap(), Tensor::from_u8(&[1, 1], &[255]));
}
