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
    let options =
        RunnerOptions { observe: observe.iter().map(|s| s.to_string()).collect(), ..RunnerOptions::default() };
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

/// Runs a model given in text on its input `x`.
fn run_text(text: &str, x: &Tensor) -> Vec<f32> {
    let model = sardonyx::io::text::parse_model(text).unwrap();
    let runner = Runner::new(&model, &RunnerOptions::default()).unwrap();
    let outputs = runner.run(&Feed::from([("x".to_string(), x.clone())])).unwrap();
    outputs[0].as_f32().unwrap().to_vec()
}

/// 1x1x8x8, different in every element.
fn ramp() -> Tensor {
    let data: Vec<f32> = (0..64).map(|k| ((k * 29) % 64) as f32 - 20.0).collect();
    Tensor::from_f32(&[1, 1, 8, 8], &data)
}

#[test]
fn downsampling_is_not_moved_through_same_padding() {
    let net = |padding: &str| {
        format!(
            r#"
<ir_version: 8, opset_import: ["" : 13]>
g (float[1,1,8,8] x) => (float[1,1,4,4] y)
<float[1,1,3,3] w = {{1, 2, 3, 4, 5, 6, 7, 8, 9}}, float[1,1,1,1] v = {{1}}>
{{
    c = Conv <{padding}> (x, w)
    r = Relu (c)
    y = Conv <strides = [2, 2]> (r, v)
}}
"#
        )
    };
    let explicit = run_text(&net("pads = [1, 1, 1, 1]"), &ramp());
    assert_eq!(run_text(&net("auto_pad = \"SAME_UPPER\""), &ramp()), explicit);
}

#[test]
fn a_slice_with_steps_is_not_moved_into_a_softmax() {
    let text = r#"
<ir_version: 8, opset_import: ["" : 13]>
g (float[1,1,8,8] x) => (float[1,1,8,4] y)
<int64[1] start = {0}, int64[1] end = {8}, int64[1] axis = {3}, int64[1] step = {2}>
{
    s = Softmax <axis = 3> (x)
    y = Slice (s, start, end, axis, step)
}
"#;
    let data = ramp().to_f32().unwrap();
    let got = run_text(text, &ramp());
    for (k, y) in got.iter().enumerate() {
        let row = &data[k / 4 * 8..k / 4 * 8 + 8];
        let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        let want = f64::from(row[k % 4 * 2]).exp() / sum;
        assert!((f64::from(*y) - want).abs() < 1e-6, "element {k}: {y}, expected {want}");
    }
}

#[test]
fn reflecting_pads_do_not_use_the_constant() {
    let net = |constant: &str| {
        format!(
            r#"
<ir_version: 8, opset_import: ["" : 13]>
g (float[1,1,8,8] x) => (float[1,1,10,10] y)
<int64[8] pads = {{0, 0, 1, 1, 0, 0, 1, 1}}, float value = {{7}}>
{{
    y = Pad <mode = "reflect"> (x, pads{constant})
}}
"#
        )
    };
    let got = run_text(&net(", value"), &ramp());
    assert_eq!(got, run_text(&net(""), &ramp()));
    assert_eq!(got[0], ramp().to_f32().unwrap()[9], "the corner is the element one row and one column in");
}

#[test]
fn a_sum_over_repeated_channels_has_all_its_terms() {
    let text = r#"
<ir_version: 8, opset_import: ["" : 13]>
g (float[1,1,8,8] x) => (float[1,1,8,8] y)
<int64[4] times = {1, 2, 1, 1}, float[1,2,1,1] w = {1, 10}>
{
    t = Tile (x, times)
    y = Conv (t, w)
}
"#;
    let want: Vec<f32> = ramp().to_f32().unwrap().iter().map(|x| 11.0 * x).collect();
    assert_eq!(run_text(text, &ramp()), want);
}

#[test]
fn nan_does_not_vanish() {
    let x = Tensor::from_f32(&[1, 1, 2, 2], &[f32::NAN, -1.0, 0.0, 1.0]);
    for op in ["Relu (x)", "Sigmoid (x)", "Tanh (x)", "HardSigmoid (x)", "Max (x, zero)", "Min (zero, x)", "Celu (x)"] {
        let text = format!(
            r#"
<ir_version: 8, opset_import: ["" : 13]>
g (float[1,1,2,2] x) => (float[1,1,2,2] y)
<float zero = {{0}}>
{{
    y = {op}
}}
"#
        );
        let y = run_text(&text, &x);
        assert!(y[0].is_nan() && y[1..].iter().all(|v| v.is_finite()), "{op}: {y:?}");
    }
}

#[test]
fn mod_does_not_swap_its_operands() {
    let text = r#"
<ir_version: 8, opset_import: ["" : 13]>
g (float[3] x) => (float[3] y)
<float a = {7}>
{
    y = Mod <fmod = 1> (a, x)
}
"#;
    assert_eq!(run_text(text, &Tensor::from_f32(&[3], &[2.0, 4.0, -5.0])), [1.0, 3.0, 2.0]);
}

#[test]
fn slices_reach_as_far_as_they_may() {
    let text = r#"
<ir_version: 8, opset_import: ["" : 13]>
g (float[4] x) => (float[N] y)
<int64[1] start = {3}, int64[1] end = {-9223372036854775808}, int64[1] axis = {0}, int64[1] step = {-2}>
{
    y = Slice (x, start, end, axis, step)
}
"#;
    assert_eq!(run_text(text, &Tensor::from_f32(&[4], &[0.0, 1.0, 2.0, 3.0])), [3.0, 1.0]);
}

#[test]
fn an_einsum_that_leaves_nothing_sums() {
    let text = r#"
<ir_version: 8, opset_import: ["" : 13]>
g (float[2,2] x) => (float y)
{
    y = Einsum <equation = "ij->"> (x)
}
"#;
    assert_eq!(run_text(text, &Tensor::from_f32(&[2, 2], &[1.0, 2.0, 3.0, 4.0])), [10.0]);
}

#[test]
fn half_precision_adds_up_in_single() {
    // 4096 ones: f16 stops counting at 2048.
    let ones = Tensor::raw(DType::F16, &[1, 4096], [0u8, 0x3c].repeat(4096));
    let mut reduce = node("ReduceMean", &["x"], "y");
    reduce.attribute.push(proto::AttributeProto {
        name: Some("keepdims".into()),
        r#type: Some(2),
        i: Some(1),
        ..Default::default()
    });
    let mean = run(vec![reduce], &[], &ones, &[]);
    assert_eq!(mean[0].as_f32().unwrap()[0], 1.0);
}
