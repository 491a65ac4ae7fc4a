//! The oracle of pruning: for every operator that ties axes, the pruned model equals the original with the weights set
//! to zero that take removed channels, up to rounding; and the channels are really gone.

use sardonyx::analysis::axis_groups::{AxisGroups, axis_groups};
use sardonyx::io::text::{parse_model, print_model};
use sardonyx::io::{Dataset, Feed, decode_model, model_to_proto};
use sardonyx::ir::{Model, Tensor};
use sardonyx::passes::prune::{Measure, Norm, PruneOptions, Slice, Target, select, zero_consumers};
use sardonyx::passes::{Pass, PassContext, manager};
use sardonyx::recipe::prepare_pruning;
use sardonyx::runtime::{Runner, RunnerOptions};

use prost::Message;

/// Share of an output's largest element by which rounding may move any element.
const ROUNDING: f32 = 2e-5;

/// A model: signature, weights that are filled with made-up numbers, other constants in text, nodes.
struct Case<'a> {
    name: &'a str,
    opset: u32,
    inputs: &'a str,
    outputs: &'a str,
    weights: &'a [(&'a str, &'a [usize])],
    constants: &'a str,
    nodes: &'a str,
    /// Shapes of weights after half of the channels of each group have gone.
    after: &'a [(&'a str, &'a [usize])],
}

/// Reproducible numbers without structure, around zero; statistics named `var` are positive.
fn numbers(name: &str, n: usize) -> String {
    let mut state = name.bytes().fold(17u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let x = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        if name.starts_with("var") { x.abs() + 0.5 } else { x }
    };
    (0..n).map(|_| format!("{:.4}", next())).collect::<Vec<_>>().join(",")
}

impl Case<'_> {
    fn model(&self) -> Model {
        let weight = |(name, dims): &(&str, &[usize])| {
            let shape: Vec<String> = dims.iter().map(usize::to_string).collect();
            format!("float[{}] {name} = {{{}}}", shape.join(","), numbers(name, dims.iter().product()))
        };
        let mut constants: Vec<String> = self.weights.iter().map(weight).collect();
        if !self.constants.is_empty() {
            constants.push(self.constants.into());
        }
        let text = format!(
            "<ir_version: 9, opset_import: [\"\": {}]>\ng ({}) => ({})\n<{}>\n{{\n{}\n}}",
            self.opset,
            self.inputs,
            self.outputs,
            constants.join(", "),
            self.nodes
        );
        let mut model = parse_model(&text).unwrap_or_else(|e| panic!("{}: {e}\n{text}", self.name));
        prepare_pruning(&mut model, &PassContext::default(), None).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        model
    }

    fn groups(&self, model: &mut Model) -> AxisGroups {
        axis_groups(model, false).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    fn check(&self) {
        let mut original = self.model();
        let groups = self.groups(&mut original);
        let options = PruneOptions { target: Target::Ratio(0.5), ..PruneOptions::default() };
        let norm = Norm { measure: Measure::L2, seed: 0 };
        let selected = select(&original, &groups, &norm, &options).unwrap();
        let mut zeroed = original.clone();
        zero_consumers(&mut zeroed, &groups, &selected.cut).unwrap();
        let mut pruned = original.clone();
        let slice = Slice { cut: selected.cut };
        let passes: [&dyn Pass; 1] = [&slice];
        manager::run(&mut pruned, &passes, &PassContext::default(), None)
            .unwrap_or_else(|e| panic!("{}: {e}\n{}", self.name, print_model(&original).unwrap()));
        for (name, dims) in self.after {
            let found = pruned.graph.find(name).unwrap_or_else(|| panic!("{}: no \"{name}\"", self.name));
            let shape = pruned.graph.ty(found).and_then(|t| t.static_shape()).unwrap();
            assert_eq!(&shape[..], *dims, "{}: \"{name}\"\n{groups:#?}", self.name);
        }
        // As it is read back from a file.
        let bytes = model_to_proto(&pruned).unwrap().encode_to_vec();
        let pruned = decode_model(bytes.into()).unwrap();
        let data = Dataset::random(&original.graph, 2, 7).unwrap();
        let runners: Vec<Runner> =
            [&zeroed, &pruned].map(|m| Runner::new(m, &RunnerOptions::default()).unwrap()).into();
        let batches = data.batches(2);
        let compare = |_: &mut (), _: usize, feed: &Feed| {
            let run = |r: &Runner| -> Vec<Tensor> {
                let outputs =
                    r.run(feed).unwrap_or_else(|e| panic!("{}: {e}\n{}", self.name, print_model(&pruned).unwrap()));
                outputs.iter().map(|o| o.to_tensor().unwrap()).collect()
            };
            for (want, got) in run(&runners[0]).iter().zip(run(&runners[1])) {
                assert_eq!(want.dims, got.dims, "{}", self.name);
                let (want, got) = (want.to_f32().unwrap(), got.to_f32().unwrap());
                let scale = want.iter().fold(0f32, |m, x| m.max(x.abs()));
                assert!(scale > 0.0, "{}: nothing but zeros proves nothing", self.name);
                for (a, b) in want.iter().zip(&got) {
                    assert!((a - b).abs() <= ROUNDING * scale, "{}: {a} and {b}", self.name);
                }
            }
            Ok(())
        };
        batches.fold(|| (), compare).unwrap();
    }
}

const IMAGE: &str = "float[N,3,8,8] x";
const OUT: &str = "float[N,4,a,b] y";

fn conv(name: &'static str, weights: &[(&str, &[usize])], constants: &str, nodes: &str, after: &[(&str, &[usize])]) {
    Case { name, opset: 17, inputs: IMAGE, outputs: OUT, weights, constants, nodes, after }.check();
}

#[test]
fn unfused_batch_normalization() {
    let weights: &[(&str, &[usize])] =
        &[("w", &[8, 3, 3, 3]), ("s", &[8]), ("b", &[8]), ("m", &[8]), ("var", &[8]), ("v", &[4, 8, 1, 1])];
    let nodes = "c = Conv(x, w) n = BatchNormalization(c, s, b, m, var) r = Relu(n) y = Conv(r, v)";
    conv("batch norm", weights, "", nodes, &[("w", &[4, 3, 3, 3]), ("var", &[4]), ("v", &[4, 4, 1, 1])]);
}

#[test]
fn vgg_flatten() {
    let weights: &[(&str, &[usize])] =
        &[("w", &[6, 3, 3, 3]), ("f", &[10, 54]), ("fb", &[10]), ("g", &[5, 10]), ("gb", &[5])];
    let case = |name: &str, nodes: &str, constants: &str| {
        let after: &[(&str, &[usize])] = &[("w", &[3, 3, 3, 3]), ("f", &[5, 27]), ("fb", &[5]), ("g", &[5, 5])];
        let (inputs, outputs) = (IMAGE, "float[N,5] y");
        Case { name, opset: 17, inputs, outputs, weights, constants, nodes, after }.check();
    };
    let head = "c = Conv(x, w) p = MaxPool<kernel_shape = [2,2], strides = [2,2]>(c) ";
    let tail = " h = Gemm<transB = 1>(f0, f, fb) r = Relu(h) y = Gemm<transB = 1>(r, g, gb)";
    case("Flatten", &format!("{head} f0 = Flatten(p) {tail}"), "");
    case("Reshape", &format!("{head} f0 = Reshape(p, t) {tail}"), "int64[2] t = {-1,54}");
    case("Reshape 0", &format!("{head} f0 = Reshape(p, t) {tail}"), "int64[2] t = {0,-1}");
    let computed = "s = Shape(p) i = Gather<axis = 0>(s, zero) u = Unsqueeze(i, ax) t = Concat<axis = 0>(u, rest) f0 = Reshape(p, t)";
    let constants = "int64 zero = {0}, int64[1] ax = {0}, int64[1] rest = {54}";
    case("Reshape to a computed shape", &format!("{head} {computed} {tail}"), constants);
}

#[test]
fn dense_concatenation() {
    let weights: &[(&str, &[usize])] = &[
        ("w1", &[6, 3, 3, 3]),
        ("w2", &[4, 6, 3, 3]),
        ("w3", &[8, 10, 1, 1]),
        ("s", &[10]),
        ("b", &[10]),
        ("m", &[10]),
        ("var", &[10]),
        ("v", &[4, 18, 1, 1]),
    ];
    let nodes = "a = Conv(x, w1) ra = Relu(a) b1 = Conv<pads = [1,1,1,1]>(ra, w2) c1 = Concat<axis = 1>(ra, b1)
        n = BatchNormalization(c1, s, b, m, var) r = Relu(n) d = Conv(r, w3) c2 = Concat<axis = -3>(c1, d) y = Conv(c2, v)";
    let after: &[(&str, &[usize])] =
        &[("w1", &[3, 3, 3, 3]), ("w2", &[2, 3, 3, 3]), ("w3", &[4, 5, 1, 1]), ("var", &[5]), ("v", &[4, 9, 1, 1])];
    conv("dense", weights, "", nodes, after);
}

#[test]
fn c2f_split() {
    let weights: &[(&str, &[usize])] =
        &[("w1", &[8, 3, 1, 1]), ("w2", &[4, 4, 3, 3]), ("w3", &[4, 4, 3, 3]), ("v", &[4, 12, 1, 1])];
    let body = "h0 = Conv<pads = [1,1,1,1]>(q, w2) h1 = Relu(h0) h2 = Conv<pads = [1,1,1,1]>(h1, w3) h = Add(q, h2)
        c = Concat<axis = 1>(p, q, h) y = Conv(c, v)";
    let after: &[(&str, &[usize])] =
        &[("w1", &[4, 3, 1, 1]), ("w2", &[2, 2, 3, 3]), ("w3", &[2, 2, 3, 3]), ("v", &[4, 6, 1, 1])];
    let sizes = "int64[2] sizes = {4,4}";
    conv("Split", weights, sizes, &format!("a = Conv(x, w1) p, q = Split<axis = 1>(a, sizes) {body}"), after);
    conv("Split in equal parts", weights, "", &format!("a = Conv(x, w1) p, q = Split<axis = 1>(a) {body}"), after);
    let slices = "int64[1] s0 = {0}, int64[1] s4 = {4}, int64[1] s8 = {9223372036854775807}, int64[1] ax = {1}";
    let sliced = format!("a = Conv(x, w1) p = Slice(a, s0, s4, ax) q = Slice(a, s4, s8, ax) {body}");
    conv("Slice", weights, slices, &sliced, after);
}

#[test]
fn channel_shuffle() {
    let weights: &[(&str, &[usize])] = &[
        ("w1", &[8, 3, 1, 1]),
        ("w2", &[4, 4, 1, 1]),
        ("d", &[4, 1, 3, 3]),
        ("w3", &[4, 4, 1, 1]),
        ("v", &[4, 8, 1, 1]),
    ];
    let constants = "int64[2] sizes = {4,4}, int64[5] t1 = {-1,2,4,8,8}, int64[4] t2 = {-1,8,8,8}";
    let nodes = "a = Conv(x, w1) p, q = Split<axis = 1>(a, sizes) b1 = Conv(q, w2) r1 = Relu(b1)
        b2 = Conv<group = 4, pads = [1,1,1,1]>(r1, d) b3 = Conv(b2, w3) c = Concat<axis = 1>(p, b3)
        s1 = Reshape(c, t1) s2 = Transpose<perm = [0,2,1,3,4]>(s1) s = Reshape(s2, t2) y = Conv(s, v)";
    let after: &[(&str, &[usize])] =
        &[("w2", &[2, 2, 1, 1]), ("d", &[2, 1, 3, 3]), ("w3", &[2, 2, 1, 1]), ("v", &[4, 4, 1, 1])];
    conv("shuffle", weights, constants, nodes, after);
}

#[test]
fn grouped_and_depthwise_convolutions() {
    let weights: &[(&str, &[usize])] =
        &[("w", &[8, 3, 1, 1]), ("d", &[8, 1, 3, 3]), ("db", &[8]), ("m", &[16, 1, 1, 1]), ("v", &[4, 16, 1, 1])];
    let nodes = "a = Conv(x, w) b = Conv<group = 8>(a, d, db) r = Clip(b) e = Conv<group = 8>(r, m) y = Conv(e, v)";
    let after: &[(&str, &[usize])] =
        &[("w", &[4, 3, 1, 1]), ("d", &[4, 1, 3, 3]), ("db", &[4]), ("m", &[8, 1, 1, 1]), ("v", &[4, 8, 1, 1])];
    conv("depthwise", weights, "", nodes, after);
    let weights: &[(&str, &[usize])] = &[("w", &[8, 3, 1, 1]), ("d", &[12, 4, 3, 3]), ("v", &[4, 12, 1, 1])];
    let nodes = "a = Conv(x, w) b = Conv<group = 2>(a, d) y = Conv(b, v)";
    conv("grouped", weights, "", nodes, &[("w", &[4, 3, 1, 1]), ("d", &[6, 2, 3, 3]), ("v", &[4, 6, 1, 1])]);
    let weights: &[(&str, &[usize])] = &[("w", &[8, 3, 1, 1]), ("d", &[8, 2, 3, 3]), ("v", &[4, 8, 1, 1])];
    let nodes = "a = Conv(x, w) b = Conv<group = 4>(a, d) y = Conv(b, v)";
    conv("whole groups", weights, "", nodes, &[("w", &[4, 3, 1, 1]), ("d", &[4, 2, 3, 3]), ("v", &[4, 4, 1, 1])]);
}

#[test]
fn transposed_convolutions_and_u_net() {
    let weights: &[(&str, &[usize])] =
        &[("w", &[6, 3, 3, 3]), ("e", &[8, 6, 3, 3]), ("t", &[8, 4, 2, 2]), ("tb", &[4]), ("v", &[4, 10, 1, 1])];
    let nodes = "a = Conv<pads = [1,1,1,1]>(x, w) r = Relu(a) p = AveragePool<kernel_shape = [2,2], strides = [2,2]>(r)
        b = Conv<pads = [1,1,1,1]>(p, e) u = ConvTranspose<strides = [2,2]>(b, t, tb) c = Concat<axis = 1>(r, u) y = Conv(c, v)";
    let after: &[(&str, &[usize])] =
        &[("w", &[3, 3, 3, 3]), ("e", &[4, 3, 3, 3]), ("t", &[4, 2, 2, 2]), ("tb", &[2]), ("v", &[4, 5, 1, 1])];
    conv("U-Net", weights, "", nodes, after);
    let resize = nodes.replace("ConvTranspose<strides = [2,2]>(b, t, tb)", "Resize<mode = \"nearest\">(b, , sc)");
    let weights: &[(&str, &[usize])] = &[("w", &[6, 3, 3, 3]), ("e", &[8, 6, 3, 3]), ("v", &[4, 14, 1, 1])];
    let after: &[(&str, &[usize])] = &[("w", &[3, 3, 3, 3]), ("e", &[4, 3, 3, 3]), ("v", &[4, 7, 1, 1])];
    conv("Resize by scales", weights, "float[4] sc = {1,1,2,2}", &resize, after);
    let sizes = resize.replace("(b, , sc)", "(b, , , sz)");
    let batch_one = sizes.clone();
    Case {
        name: "Resize to sizes",
        opset: 17,
        inputs: "float[1,3,8,8] x",
        outputs: "float[1,4,8,8] y",
        weights,
        constants: "int64[4] sz = {1,8,8,8}",
        nodes: &batch_one,
        after,
    }
    .check();
    let weights: &[(&str, &[usize])] = &[("w", &[6, 3, 1, 1]), ("t", &[6, 1, 2, 2]), ("v", &[4, 6, 1, 1])];
    let nodes = "a = Conv(x, w) u = ConvTranspose<group = 6>(a, t) y = Conv(u, v)";
    conv("depthwise ConvTranspose", weights, "", nodes, &[("t", &[3, 1, 2, 2]), ("v", &[4, 3, 1, 1])]);
    let weights: &[(&str, &[usize])] = &[("w", &[8, 3, 1, 1]), ("t", &[8, 4, 2, 2]), ("v", &[4, 8, 1, 1])];
    let nodes = "a = Conv(x, w) u = ConvTranspose<group = 2>(a, t) y = Conv(u, v)";
    conv(
        "grouped ConvTranspose",
        weights,
        "",
        nodes,
        &[("w", &[4, 3, 1, 1]), ("t", &[4, 2, 2, 2]), ("v", &[4, 4, 1, 1])],
    );
}

#[test]
fn residuals() {
    let weights: &[(&str, &[usize])] = &[
        ("w", &[6, 3, 1, 1]),
        ("a1", &[8, 6, 3, 3]),
        ("a2", &[6, 8, 3, 3]),
        ("slope", &[6, 1, 1]),
        ("d", &[10, 6, 1, 1]),
        ("v", &[4, 10, 1, 1]),
    ];
    let constants = "int64[8] pads = {0,2,0,0,0,2,0,0}";
    let nodes = "s = Conv(x, w) h1 = Conv<pads = [1,1,1,1]>(s, a1) r1 = Relu(h1) h2 = Conv<pads = [1,1,1,1]>(r1, a2)
        t = Add(h2, s) p = PRelu(t, slope) q = Pad(p, pads) k = Conv(p, d) z = Sum(q, k) y = Conv(z, v)";
    let after: &[(&str, &[usize])] = &[("a1", &[4, 3, 3, 3]), ("a2", &[3, 4, 3, 3]), ("slope", &[3, 1, 1])];
    conv("residual, padded shortcut", weights, constants, nodes, after);
}

#[test]
fn squeeze_and_excitation() {
    let weights: &[(&str, &[usize])] =
        &[("w", &[8, 3, 1, 1]), ("e1", &[4, 8]), ("e1b", &[4]), ("e2", &[4, 8]), ("e2b", &[8]), ("v", &[4, 8, 1, 1])];
    let constants = "int64[2] ax = {2,3}";
    let nodes =
        "c = Conv(x, w) g = GlobalAveragePool(c) q = Squeeze(g, ax) f1 = Gemm<transB = 1>(q, e1, e1b) r = Relu(f1)
        f2 = MatMul(r, e2) f3 = Add(f2, e2b) g2 = Sigmoid(f3) u = Unsqueeze(g2, ax) m = Mul(c, u) y = Conv(m, v)";
    let after: &[(&str, &[usize])] =
        &[("w", &[4, 3, 1, 1]), ("e1", &[2, 4]), ("e1b", &[2]), ("e2", &[2, 4]), ("e2b", &[4]), ("v", &[4, 4, 1, 1])];
    conv("SE", weights, constants, nodes, after);
    let mean =
        nodes.replace("g = GlobalAveragePool(c) q = Squeeze(g, ax)", "q = ReduceMean<axes = [2,3], keepdims = 0>(c)");
    conv("SE by ReduceMean", weights, constants, &mean, after);
}

fn matrix(name: &'static str, weights: &[(&str, &[usize])], constants: &str, nodes: &str, after: &[(&str, &[usize])]) {
    let (inputs, outputs) = ("float[N,5,6] x", "float[N,5,4] y");
    Case { name, opset: 17, inputs, outputs, weights, constants, nodes, after }.check();
}

#[test]
fn perceptrons() {
    let weights: &[(&str, &[usize])] = &[("w", &[6, 8]), ("b", &[8]), ("v", &[8, 4])];
    let after: &[(&str, &[usize])] = &[("w", &[6, 4]), ("b", &[4]), ("v", &[4, 4])];
    let gelu = "h0 = MatMul(x, w) h = Add(h0, b) d = Div(h, root) e = Erf(d) o = Add(e, one) m = Mul(h, o) g = Mul(m, half) y = MatMul(g, v)";
    matrix("erf GELU", weights, "float root = {1.41421}, float one = {1}, float half = {0.5}", gelu, after);
    let swish = "h0 = MatMul(x, w) h = Add(b, h0) s = Sigmoid(h) g0 = Mul(h, s) g1 = Identity(g0) g2 = Cast<to = 11>(g1) g3 = Cast<to = 1>(g2) g = Dropout(g3) y = MatMul(g, v)";
    matrix("swish", weights, "", swish, after);
    let einsum = "h0 = Einsum<equation = \"bsi,ih->bsh\">(x, w) h = Add(h0, b) t = Tanh(h) y = Einsum<equation = \"bsh,ho->bso\">(t, v)";
    matrix("Einsum", weights, "", einsum, after);
    let norm = "h0 = MatMul(x, w) h = Add(h0, b) t = Transpose<perm = [0,2,1]>(h) s = Softmax(t) u = Transpose<perm = [0,2,1]>(s) y = MatMul(u, v)";
    matrix("Softmax along another axis", weights, "", norm, after);
    let pick = "h0 = MatMul(x, w) h = Add(h0, b) p = Gather<axis = 2>(h, idx) t = Tanh(p) y = MatMul(t, v)";
    matrix("Gather", weights, "int64[8] idx = {7,6,5,4,-5,2,1,0}", pick, after);
    let choose =
        "h0 = MatMul(x, w) h = Add(h0, b) c = Greater(h, zero) t = Where(c, h, b) z = Max(t, zero) y = MatMul(z, v)";
    matrix("Where", weights, "float zero = {0.1}", choose, after);
    let split = "h0 = MatMul(x, w) h = Add(h0, b) e = Expand(row, shape) t = Mul(h, e) y = MatMul(t, v)";
    let weights: &[(&str, &[usize])] = &[("w", &[6, 8]), ("b", &[8]), ("row", &[8]), ("v", &[8, 4])];
    matrix("Expand", weights, "int64[3] shape = {1,5,8}", split, after);
    let weights: &[(&str, &[usize])] = &[("w", &[6, 8]), ("b", &[8]), ("v", &[16, 4])];
    let tile = "h0 = MatMul(x, w) h = Add(h0, b) t = Tile(h, rep) y = MatMul(t, v)";
    matrix("Tile", weights, "int64[3] rep = {1,1,2}", tile, &[("w", &[6, 4]), ("v", &[8, 4])]);
}

#[test]
fn attention_by_head() {
    let weights: &[(&str, &[usize])] =
        &[("wq", &[6, 16]), ("wk", &[6, 16]), ("wv", &[6, 16]), ("bq", &[16]), ("bv", &[16]), ("wo", &[16, 4])];
    let constants = "int64[4] t = {0,0,4,4}, int64[3] back = {0,0,16}, float scale = {0.5}";
    let nodes = "q0 = MatMul(x, wq) q1 = Add(q0, bq) q2 = Reshape(q1, t) q = Transpose<perm = [0,2,1,3]>(q2)
        k0 = MatMul(x, wk) k2 = Reshape(k0, t) k = Transpose<perm = [0,2,3,1]>(k2)
        v0 = MatMul(x, wv) v1 = Add(v0, bv) v2 = Reshape(v1, t) v = Transpose<perm = [0,2,1,3]>(v2)
        s0 = MatMul(q, k) s1 = Mul(s0, scale) s = Softmax(s1) c0 = MatMul(s, v) c1 = Transpose<perm = [0,2,1,3]>(c0)
        c = Reshape(c1, back) y = MatMul(c, wo)";
    let after: &[(&str, &[usize])] =
        &[("wq", &[6, 8]), ("wk", &[6, 8]), ("wv", &[6, 8]), ("bq", &[8]), ("bv", &[8]), ("wo", &[8, 4])];
    matrix("heads", weights, constants, nodes, after);
    // Queries, keys and values in one product.
    let weights: &[(&str, &[usize])] = &[("w", &[6, 48]), ("wo", &[16, 4])];
    let constants =
        "int64[5] t = {0,0,3,4,4}, int64[3] back = {0,0,16}, int64 zero = {0}, int64 one = {1}, int64 two = {2}";
    let nodes = "a = MatMul(x, w) r = Reshape(a, t) p = Transpose<perm = [2,0,3,1,4]>(r) q = Gather<axis = 0>(p, zero)
        k1 = Gather<axis = 0>(p, one) v = Gather<axis = 0>(p, two) k = Transpose<perm = [0,1,3,2]>(k1) s0 = MatMul(q, k)
        s = Softmax(s0) c0 = MatMul(s, v) c1 = Transpose<perm = [0,2,1,3]>(c0) c = Reshape(c1, back) y = MatMul(c, wo)";
    matrix("packed heads", weights, constants, nodes, &[("w", &[6, 24]), ("wo", &[8, 4])]);
}

#[test]
fn recurrent_layers() {
    let recurrent = |name: &'static str, op: &str, gates: usize, bias: usize, directions: usize| {
        let (rows, width) = (gates * 8, directions * 8);
        let (w, r, b) = ([directions, rows, 6], [directions, rows, 8], [directions, bias * 8]);
        let v = [width, 4];
        let weights: &[(&str, &[usize])] = &[("w", &w), ("r", &r), ("b", &b), ("v", &v)];
        let direction = if directions == 2 { ", direction = \"bidirectional\"" } else { "" };
        let nodes = format!(
            "t = Transpose<perm = [1,0,2]>(x) h0 = {op}<hidden_size = 8{direction}>(t, w, r, b)
            h1 = Transpose<perm = [2,0,1,3]>(h0) h = Reshape(h1, flat) y = MatMul(h, v)"
        );
        let constants = format!("int64[3] flat = {{0,0,{width}}}");
        let half = rows / 2;
        let after: &[(&str, &[usize])] = &[
            ("w", &[directions, half, 6]),
            ("r", &[directions, half, 4]),
            ("b", &[directions, bias * 4]),
            ("v", &[width / 2, 4]),
        ];
        matrix(name, weights, &constants, &nodes, after);
    };
    recurrent("LSTM", "LSTM", 4, 8, 1);
    recurrent("GRU", "GRU", 3, 6, 1);
    recurrent("RNN", "RNN", 1, 2, 1);
    recurrent("LSTM in both directions", "LSTM", 4, 8, 2);
}

#[test]
fn a_recurrent_state_of_zeros_is_no_barrier() {
    let weights: &[(&str, &[usize])] =
        &[("w", &[1, 24, 6]), ("r", &[1, 24, 8]), ("b", &[1, 48]), ("v", &[4, 8]), ("vb", &[4])];
    let nodes = "t = Transpose<perm = [1,0,2]>(x) s = Shape(x) i = Gather(s, zero) n = Unsqueeze(i, zeros)
        sh = Concat<axis = 0>(one, n, eight) h0 = ConstantOfShape(sh)
        q, h = GRU<hidden_size = 8, linear_before_reset = 1>(t, w, r, b, , h0) k = Squeeze(h, zeros) y = Gemm<transB = 1>(k, v, vb)";
    Case {
        name: "zero state",
        opset: 17,
        inputs: "float[N,5,6] x",
        outputs: "float[N,4] y",
        weights,
        constants: "int64 zero = {0}, int64[1] zeros = {0}, int64[1] one = {1}, int64[1] eight = {8}",
        nodes,
        after: &[("w", &[1, 12, 6]), ("r", &[1, 12, 4]), ("b", &[1, 24]), ("v", &[4, 4])],
    }
    .check();
}

#[test]
fn norms_per_channel() {
    let weights: &[(&str, &[usize])] = &[("w", &[8, 3, 1, 1]), ("s", &[8]), ("b", &[8]), ("v", &[4, 8, 1, 1])];
    let nodes = "c = Conv(x, w) n = InstanceNormalization(c, s, b) y = Conv(n, v)";
    conv("InstanceNormalization", weights, "", nodes, &[("w", &[4, 3, 1, 1]), ("s", &[4]), ("v", &[4, 4, 1, 1])]);
    let nodes = "c = Conv(x, w) n = GroupNormalization<num_groups = 4>(c, s, b) y = Conv(n, v)";
    let case = |opset, weights: &[(&str, &[usize])], after: &[(&str, &[usize])]| {
        let (inputs, outputs) = (IMAGE, OUT);
        Case { name: "GroupNormalization", opset, inputs, outputs, weights, constants: "", nodes, after }.check();
    };
    case(21, weights, &[("w", &[4, 3, 1, 1]), ("s", &[4]), ("v", &[4, 4, 1, 1])]);
    let per_group: &[(&str, &[usize])] = &[("w", &[8, 3, 1, 1]), ("s", &[4]), ("b", &[4]), ("v", &[4, 8, 1, 1])];
    case(18, per_group, &[("w", &[4, 3, 1, 1]), ("s", &[2]), ("v", &[4, 4, 1, 1])]);
}

#[test]
fn blocks_of_pixels() {
    let weights: &[(&str, &[usize])] = &[("w", &[16, 3, 1, 1]), ("v", &[4, 4, 1, 1])];
    for mode in ["DCR", "CRD"] {
        let nodes = format!("c = Conv(x, w) d = DepthToSpace<blocksize = 2, mode = \"{mode}\">(c) y = Conv(d, v)");
        conv("DepthToSpace", weights, "", &nodes, &[("w", &[8, 3, 1, 1]), ("v", &[4, 2, 1, 1])]);
    }
    let weights: &[(&str, &[usize])] = &[("w", &[6, 3, 1, 1]), ("v", &[4, 24, 1, 1])];
    let nodes = "c = Conv(x, w) d = SpaceToDepth<blocksize = 2>(c) y = Conv(d, v)";
    conv("SpaceToDepth", weights, "", nodes, &[("w", &[3, 3, 1, 1]), ("v", &[4, 12, 1, 1])]);
}

#[test]
fn shared_weights_are_cut_once_for_all() {
    let weights: &[(&str, &[usize])] = &[("w", &[6, 3, 1, 1]), ("k", &[6, 6, 3, 3]), ("v", &[4, 6, 1, 1])];
    let nodes =
        "a = Conv(x, w) b = Conv<pads = [1,1,1,1]>(a, k) r = Relu(b) c = Conv<pads = [1,1,1,1]>(r, k) y = Conv(c, v)";
    conv("shared", weights, "", nodes, &[("w", &[3, 3, 1, 1]), ("k", &[3, 3, 3, 3]), ("v", &[4, 3, 1, 1])]);
}

#[test]
fn quantized_weights() {
    let weights: &[(&str, &[usize])] = &[("sw", &[8]), ("v", &[4, 8, 1, 1])];
    let codes: Vec<String> = (0..8 * 3).map(|k| ((k * 37) % 200 - 100).to_string()).collect();
    let constants = format!("int8[8,3,1,1] w = {{{}}}, int8[8] z = {{0,0,0,0,0,0,0,0}}", codes.join(","));
    let nodes = "wf = DequantizeLinear<axis = 0>(w, sw, z) c = Conv(x, wf) r = Relu(c) y = Conv(r, v)";
    conv("DequantizeLinear", weights, &constants, nodes, &[("w", &[4, 3, 1, 1]), ("sw", &[4]), ("v", &[4, 4, 1, 1])]);
}

/// What must stay whole, and what the reason must say.
fn barred(name: &str, weights: &[(&str, &[usize])], constants: &str, nodes: &str, reason: &str, inexact: bool) {
    let (inputs, outputs) = ("float[N,5,6] x", "float[N,5,4] y");
    let case = Case { name, opset: 17, inputs, outputs, weights, constants, nodes, after: &[] };
    let mut model = case.model();
    let groups = case.groups(&mut model);
    let w = model.graph.find("w").unwrap();
    let of_w = groups.groups.iter().find(|g| g.axes.iter().any(|p| p.value == w && p.axis == 1));
    let barrier = of_w.and_then(|g| g.barrier.clone()).unwrap_or_else(|| panic!("{name}: it may be pruned"));
    assert!(barrier.reason.contains(reason), "{name}: {}", barrier.reason);
    assert_eq!(barrier.inexact, inexact, "{name}");
    let lifted = axis_groups(&mut model, true).unwrap();
    let of_w = lifted.groups.iter().find(|g| g.axes.iter().any(|p| p.value == w && p.axis == 1)).unwrap();
    assert_eq!(of_w.barrier.is_none(), inexact, "{name}: {of_w:?}");
}

#[test]
fn what_ties_channels_without_being_separable_is_left_alone() {
    let weights: &[(&str, &[usize])] = &[("w", &[6, 8]), ("s", &[8]), ("v", &[8, 4])];
    let norm = "h = MatMul(x, w) n = LayerNormalization(h, s) y = MatMul(n, v)";
    barred("LayerNormalization", weights, "", norm, "normalizes over it", true);
    let softmax = "h = MatMul(x, w) n = Softmax(h) y = MatMul(n, v)";
    barred("Softmax", weights, "", softmax, "normalizes along it", true);
    let mean = "h = MatMul(x, w) m = ReduceMean<axes = [-1]>(h) n = Sub(h, m) y = MatMul(n, v)";
    barred("ReduceMean", weights, "", mean, "reduces over it", true);
    let unknown = "h = MatMul(x, w) n = TopK(h, k) y = MatMul(n, v)";
    barred(
        "TopK",
        weights,
        "int64[1] k = {8}",
        &unknown.replace("n = TopK", "n, i = TopK"),
        "says nothing about its axes",
        false,
    );
    let opaque = "h = MatMul(x, w) n = CumSum(h, two) y = MatMul(n, v)";
    barred("CumSum", weights, "int64 two = {2}", opaque, "needs all of it", false);
    let read = "h = MatMul(x, w) s0 = Shape(h) f = Cast<to = 1>(s0) m = ReduceMax<keepdims = 0>(f) q = Mul(h, m) y = MatMul(q, v)";
    barred("Shape", weights, "", read, "reads its size", false);
    let body = "h = MatMul(x, w) t = If(c) <then_branch = a () => (float[N,5,8] p) { p = Relu(h) }, else_branch = b () => (float[N,5,8] q) { q = Tanh(h) }> y = MatMul(t, v)";
    let with_condition = format!("m = ReduceMax<keepdims = 0>(x) c = Greater(m, zero) {body}");
    barred("If", weights, "float zero = {0}", &with_condition, "body", false);
}

#[test]
fn rounding_and_least_channels() {
    let weights: &[(&str, &[usize])] = &[("w", &[24, 3, 1, 1]), ("v", &[4, 24, 1, 1])];
    let (constants, nodes, after): (_, _, &[_]) = ("", "a = Conv(x, w) y = Conv(a, v)", &[]);
    let case = Case { name: "rounding", opset: 17, inputs: IMAGE, outputs: OUT, weights, constants, nodes, after };
    let mut model = case.model();
    let groups = case.groups(&mut model);
    let kept = |options: PruneOptions| {
        let selected = select(&model, &groups, &Norm { measure: Measure::L1, seed: 0 }, &options).unwrap();
        24 - selected.removed.iter().map(Vec::len).sum::<usize>()
    };
    let of = |ratio| PruneOptions { target: Target::Ratio(ratio), ..PruneOptions::default() };
    assert_eq!(kept(of(0.5)), 12);
    assert_eq!(kept(of(1.0)), 1, "a layer never vanishes");
    assert_eq!(kept(PruneOptions { round_to: 8, ..of(0.5) }), 16);
    assert_eq!(kept(PruneOptions { min_channels: 20, ..of(0.5) }), 20);
    assert_eq!(kept(PruneOptions { exclude: vec!["Conv".into()], ..of(0.5) }), 24);
    assert_eq!(kept(PruneOptions { target: Target::Macs(0.5), ..PruneOptions::default() }), 12);
    assert_eq!(kept(PruneOptions { target: Target::Params(0.5), global: true, ..PruneOptions::default() }), 12);
}
