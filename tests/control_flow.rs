//! Control flow and sequences, against answers worked out by hand.

use sardonyx::io::text::parse_model;
use sardonyx::io::{Feed, load, read_npz};
use sardonyx::ir::{DType, Model, Tensor};
use sardonyx::runtime::{Runner, RunnerOptions};
use std::path::Path;

fn feed(tensors: &[(&str, Tensor)]) -> Feed {
    tensors.iter().map(|(name, t)| (name.to_string(), t.clone())).collect()
}

fn try_run(text: &str, tensors: &[(&str, Tensor)], options: &RunnerOptions) -> Result<Vec<Tensor>, String> {
    let model = parse_model(text).unwrap();
    model.verify().unwrap();
    let runner = Runner::new(&model, options).map_err(|e| e.to_string())?;
    let first = runner.run(&feed(tensors)).map_err(|e| e.to_string())?;
    let again = runner.run(&feed(tensors)).map_err(|e| e.to_string())?;
    let outputs: Vec<Tensor> = first.iter().map(|o| o.to_tensor().unwrap()).collect();
    assert_eq!(outputs, again.iter().map(|o| o.to_tensor().unwrap()).collect::<Vec<_>>(), "runs differ");
    Ok(outputs)
}

fn run(text: &str, tensors: &[(&str, Tensor)]) -> Vec<Tensor> {
    try_run(text, tensors, &RunnerOptions::default()).unwrap()
}

fn refusal(text: &str, tensors: &[(&str, Tensor)], options: &RunnerOptions) -> String {
    try_run(text, tensors, options).unwrap_err()
}

fn boolean(b: bool) -> Tensor {
    Tensor::raw(DType::Bool, &[], vec![u8::from(b)])
}

fn int(n: i64) -> Tensor {
    Tensor::from_i64(&[], &[n])
}

fn f32s(dims: &[usize], data: &[f32]) -> Tensor {
    Tensor::from_f32(dims, data)
}

/// Adds `x` to the state in every iteration while the state is below the limit, and yields the state before it.
const SUM: &str = r#"
<ir_version: 8, opset_import: ["" : 17]>
sum (int64 m, bool c, float[2] x, float limit) => (float[2] total, float[n,2] before)
<float[2] zero = {0, 0}>
{
    total, before = Loop (m, c, zero) <body = b (int64 i, bool go, float[2] s) => (bool more, float[2] t, float[2] s2) {
        t = Add (s, x)
        largest = ReduceMax <keepdims = 0> (t)
        more = Less (largest, limit)
        s2 = Identity (s)
    }>
}
"#;

fn sum(m: i64, c: bool, limit: f32) -> Vec<Tensor> {
    let x = f32s(&[2], &[1.0, 10.0]);
    run(SUM, &[("m", int(m)), ("c", boolean(c)), ("x", x), ("limit", f32s(&[], &[limit]))])
}

#[test]
fn a_loop_stops_by_its_trip_count_or_its_condition() {
    let three = [f32s(&[2], &[3.0, 30.0]), f32s(&[3, 2], &[0.0, 0.0, 1.0, 10.0, 2.0, 20.0])];
    assert_eq!(sum(3, true, 1e9), three);
    assert_eq!(sum(100, true, 25.0), three);
}

#[test]
fn a_loop_without_iterations_yields_its_initial_state_and_nothing() {
    let none = [f32s(&[2], &[0.0, 0.0]), f32s(&[0, 2], &[])];
    assert_eq!(sum(0, true, 1e9), none);
    assert_eq!(sum(-3, true, 1e9), none);
    assert_eq!(sum(5, false, 1e9), none);
}

#[test]
fn trip_count_and_condition_may_be_absent() {
    let net = |m: &str, c: &str| SUM.replace("Loop (m, c, zero)", &format!("Loop ({m}, {c}, zero)"));
    let x = ("x", f32s(&[2], &[1.0, 10.0]));
    let (m, c) = (("m", int(2)), ("c", boolean(true)));
    let inputs = |limit: f32| [m.clone(), c.clone(), x.clone(), ("limit", f32s(&[], &[limit]))];
    assert_eq!(run(&net("m", "\"\""), &inputs(1e9))[0], f32s(&[2], &[2.0, 20.0]));
    assert_eq!(run(&net("\"\"", "c"), &inputs(35.0))[0], f32s(&[2], &[4.0, 40.0]));
    assert_eq!(run(&net("\"\"", "\"\""), &inputs(15.0))[0], f32s(&[2], &[2.0, 20.0]));
    let bound = RunnerOptions { max_iterations: 500, ..RunnerOptions::default() };
    let e = refusal(&net("\"\"", "\"\""), &inputs(f32::INFINITY), &bound);
    assert!(e.contains("(Loop): iteration") || e.contains("Loop node"), "{e}");
    assert!(e.contains("max_iterations"), "{e}");
}

#[test]
fn endless_and_swelling_loops_are_errors() {
    let forever = i64::MAX / 2;
    let x = [("m", int(forever)), ("c", boolean(true)), ("x", f32s(&[2], &[0.0, 0.0]))];
    let x: Vec<_> = x.into_iter().chain([("limit", f32s(&[], &[1.0]))]).collect();
    let bound = RunnerOptions { max_iterations: 2_000, ..RunnerOptions::default() };
    assert!(refusal(SUM, &x, &bound).contains("max_iterations"));
    let bound = RunnerOptions { max_loop_bytes: 100_000, ..RunnerOptions::default() };
    assert!(refusal(SUM, &x, &bound).contains("max_loop_bytes"), "what is collected counts");
    let doubling = r#"
<ir_version: 8, opset_import: ["" : 17]>
g (int64 m, float[n] x) => (float[k] y)
{
    y = Loop (m, "", x) <body = b (int64 i, bool go, float[k] s) => (bool more, float[l] t) {
        more = Identity (go)
        t = Concat <axis = 0> (s, s)
    }>
}
"#;
    let x = f32s(&[1], &[7.0]);
    assert_eq!(run(doubling, &[("m", int(3)), ("x", x.clone())]), [f32s(&[8], &[7.0; 8])]);
    let e = refusal(doubling, &[("m", int(forever)), ("x", x)], &bound);
    assert!(e.contains("max_loop_bytes"), "the state counts: {e}");
}

#[test]
fn nested_bodies_see_all_that_is_around_them() {
    // Row i, column j: 100 * i + 10 * j + x, in a loop within a loop, within a branch.
    let text = r#"
<ir_version: 8, opset_import: ["" : 17]>
g (bool c, int64 rows, int64 columns, int64 x) => (int64[r,k] y)
<int64 hundred = {100}, int64 ten = {10}>
{
    y = If (c) <then_branch = t () => (int64[r,k] a) {
        a = Loop (rows, "") <body = b (int64 i, bool go) => (bool more, int64[k] row) {
            more = Identity (go)
            far = Mul (i, hundred)
            row = Loop (columns, "") <body = b2 (int64 j, bool go2) => (bool more2, int64 z) {
                more2 = Identity (go2)
                near = Mul (j, ten)
                both = Add (far, near)
                z = Add (both, x)
            }>
        }>
    }, else_branch = e () => (int64 d) {
        d = Neg (x)
    }>
}
"#;
    let given = |c| [("c", boolean(c)), ("rows", int(2)), ("columns", int(3)), ("x", int(5))];
    assert_eq!(run(text, &given(true)), [Tensor::from_i64(&[2, 3], &[5, 15, 25, 105, 115, 125])]);
    assert_eq!(run(text, &given(false)), [int(-5)], "the other branch has another rank");
}

#[test]
fn branches_may_yield_what_is_around_them_and_constants() {
    let text = r#"
<ir_version: 8, opset_import: ["" : 17]>
g (bool c, float[2] x) => (float[n] y, float[n] z)
<float[3] w = {1, 2, 3}>
{
    r = Relu (x)
    y, z = If (c) <then_branch = t () => (float[2] r, float[1] k) {
        k = Constant <value = float[1] {9}> ()
    }, else_branch = e () => (float[3] w, float[2] s) {
        s = Neg (r)
    }>
}
"#;
    let x = ("x", f32s(&[2], &[-1.0, 4.0]));
    assert_eq!(run(text, &[("c", boolean(true)), x.clone()]), [f32s(&[2], &[0.0, 4.0]), f32s(&[1], &[9.0])]);
    let otherwise = run(text, &[("c", boolean(false)), x]);
    assert_eq!(otherwise, [f32s(&[3], &[1.0, 2.0, 3.0]), f32s(&[2], &[-0.0, -4.0])]);
}

#[test]
fn refusals_reach_into_bodies_but_not_into_branches_that_are_never_taken() {
    let net = |condition: &str| {
        format!(
            r#"
<ir_version: 8, opset_import: ["" : 17, "odd" : 1]>
g (bool c, float[2] x) => (float[2] y)
<bool yes = {{1}}>
{{
    y = If ({condition}) <then_branch = t () => (float[2] a) {{
        a = Relu (x)
    }}, else_branch = e () => (float[2] b) {{
        [strange] b = odd.Unheard (x)
    }}>
}}
"#
        )
    };
    let x = [("c", boolean(true)), ("x", f32s(&[2], &[-1.0, 2.0]))];
    let e = refusal(&net("c"), &x, &RunnerOptions::default());
    assert!(e.contains("node \"strange\" (odd.Unheard)"), "{e}");
    assert_eq!(run(&net("yes"), &x), [f32s(&[2], &[0.0, 2.0])]);
}

#[test]
fn scan_goes_both_ways_along_any_axis() {
    // Running sums of the columns of x, from the right; y holds them from the left, along axis 1.
    let text = r#"
<ir_version: 8, opset_import: ["" : 17]>
g (float[2] start, float[2,3] x, float[3] f) => (float[2] last, float[2,3] y, float[3,2] z)
{
    last, y, z = Scan (start, x, f) <num_scan_inputs = 2, scan_input_axes = [-1, 0], scan_input_directions = [1, 0],
            scan_output_axes = [1, 0], scan_output_directions = [1, 0],
            body = b (float[2] s, float[2] column, float k) => (float[2] t, float[2] t2, float[2] scaled) {
        t = Add (s, column)
        t2 = Identity (t)
        scaled = Mul (column, k)
    }>
}
"#;
    let x = f32s(&[2, 3], &[1.0, 2.0, 3.0, 10.0, 20.0, 30.0]);
    let given = [("start", f32s(&[2], &[0.5, 0.0])), ("x", x), ("f", f32s(&[3], &[1.0, 2.0, 3.0]))];
    let want = [
        f32s(&[2], &[6.5, 60.0]),
        f32s(&[2, 3], &[6.5, 5.5, 3.5, 60.0, 50.0, 30.0]),
        f32s(&[3, 2], &[3.0, 30.0, 4.0, 40.0, 3.0, 30.0]),
    ];
    assert_eq!(run(text, &given), want);
    let none = [("start", f32s(&[2], &[0.5, 0.0])), ("x", f32s(&[2, 0], &[])), ("f", f32s(&[0], &[]))];
    let want = [f32s(&[2], &[0.5, 0.0]), f32s(&[2, 0], &[]), f32s(&[0, 2], &[])];
    assert_eq!(run(&text.replace("2,3]", "2,n]").replace("[3", "[n"), &none), want);
}

#[test]
fn the_first_form_of_scan_has_a_batch_and_sequence_lengths() {
    let text = r#"
<ir_version: 3, opset_import: ["" : 8]>
g (int64[2] lengths, float[2,1] start, float[2,3,1] x) => (float[2,1] last, float[2,3,1] y)
{
    last, y = Scan (lengths, start, x) <num_scan_inputs = 1, body = b (float[1] s, float[1] a) => (float[1] t, float[1] u) {
        t = Add (s, a)
        u = Identity (t)
    }>
}
"#;
    let x = f32s(&[2, 3, 1], &[1.0, 2.0, 3.0, 10.0, 20.0, 30.0]);
    let lengths = ("lengths", Tensor::from_i64(&[2], &[3, 2]));
    let start = ("start", f32s(&[2, 1], &[0.0, 1.0]));
    let want = [f32s(&[2, 1], &[6.0, 31.0]), f32s(&[2, 3, 1], &[1.0, 3.0, 6.0, 11.0, 31.0, 0.0])];
    assert_eq!(run(text, &[lengths, start.clone(), ("x", x.clone())]), want);
    let all = text.replace("Scan (lengths,", "Scan (\"\",").replace("int64[2] lengths, ", "");
    assert_eq!(run(&all, &[start, ("x", x)])[0], f32s(&[2, 1], &[6.0, 61.0]));
}

#[test]
fn sequences_are_built_changed_and_joined() {
    let text = r#"
<ir_version: 8, opset_import: ["" : 17]>
g (float[5] x, int64 m) => (float[k] y, float[2,2] stacked, int64 length, float[p] second, bool has)
<int64[3] sizes = {2, 1, 2}, int64 last = {-1}, int64 one = {1}, int64 two = {2}>
{
    parts = SplitToSequence <axis = 0> (x, sizes)
    longer = SequenceInsert (parts, x, one)
    same = Identity (longer)
    shorter = SequenceErase (same, two)
    second = SequenceAt (shorter, last)
    length = SequenceLength (shorter)
    again = SequenceErase (parts, one)
    stacked = ConcatFromSequence <axis = 0, new_axis = 1> (again)
    empty = SequenceEmpty ()
    full = Loop (m, "", empty) <body = b (int64 i, bool go, seq(float[k]) s) => (bool more, seq(float[k]) t) {
        more = Identity (go)
        f = Cast <to = 1> (i)
        e = Mul (x, f)
        t = SequenceInsert (s, e)
    }>
    y = ConcatFromSequence <axis = 0> (full)
    some = Optional (x)
    has = OptionalHasElement (some)
}
"#;
    let x = f32s(&[5], &[1.0, 2.0, 3.0, 4.0, 5.0]);
    let outputs = run(text, &[("x", x), ("m", int(2))]);
    assert_eq!(outputs[0], f32s(&[10], &[0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
    assert_eq!(outputs[1], f32s(&[2, 2], &[1.0, 2.0, 4.0, 5.0]));
    assert_eq!(outputs[2], int(3));
    assert_eq!(outputs[3], f32s(&[2], &[4.0, 5.0]));
    assert_eq!(outputs[4], boolean(true));
}

#[test]
fn a_split_without_sizes_and_a_map() {
    let text = r#"
<ir_version: 8, opset_import: ["" : 18]>
g (float[2,3] x, float w) => (float[2,3] y)
{
    columns = SplitToSequence <axis = 1, keepdims = 0> (x)
    scaled = SequenceMap (columns, w) <body = b (float[2] c, float k) => (float[2] d) { d = Mul (c, k) }>
    y = ConcatFromSequence <axis = -1, new_axis = 1> (scaled)
}
"#;
    let x = f32s(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let want = [f32s(&[2, 3], &[2.0, 4.0, 6.0, 8.0, 10.0, 12.0])];
    assert_eq!(run(text, &[("x", x), ("w", f32s(&[], &[2.0]))]), want);
}

#[test]
fn shapes_that_depend_on_data_are_run_node_by_node() {
    let text = r#"
<ir_version: 8, opset_import: ["" : 17]>
g (float[n] x) => (float[k] y, int64[1] count)
<int64[1] flat = {-1}>
{
    at = NonZero (x)
    row = Reshape (at, flat)
    count = Shape (row)
    r = Gather (x, row)
    filled = ConstantOfShape <value = float[1] {3}> (count)
    y = Mul (r, filled)
}
"#;
    let outputs = run(text, &[("x", f32s(&[4], &[0.0, 2.0, 0.0, 5.0]))]);
    assert_eq!(outputs, [f32s(&[2], &[6.0, 15.0]), Tensor::from_i64(&[1], &[2])]);
}

#[test]
fn sixty_four_nested_bodies_fit_a_small_stack() {
    let mut text =
        String::from("<ir_version: 8, opset_import: [\"\" : 17]> g (bool c, float[2] x) => (float[2] y0) {\n");
    for k in 1..=64 {
        text += &format!(
            "y{} = If (c) <else_branch = e () => (float[2] n{k}) {{ n{k} = Neg (x) }}, then_branch = t () => (float[2] y{k}) {{",
            k - 1
        );
    }
    text += "y64 = Relu (x)";
    text += &"}>".repeat(64);
    text += "}";
    // The parser takes more of the stack than the runtime may.
    let parse = std::thread::Builder::new().stack_size(16 << 20).spawn(move || parse_model(&text).unwrap()).unwrap();
    let model = parse.join().unwrap();
    let work = move || {
        let given = feed(&[("c", boolean(true)), ("x", f32s(&[2], &[-1.0, 2.0]))]);
        let outputs = Runner::new(&model, &RunnerOptions::default()).unwrap().run(&given).unwrap();
        assert_eq!(outputs[0].to_tensor().unwrap(), f32s(&[2], &[0.0, 2.0]));
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(work).unwrap().join().unwrap();
}

fn shared(path: &str) -> Option<std::path::PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if !path.exists() {
        eprintln!("skipped: {} is absent", path.display());
        return None;
    }
    Some(path)
}

fn silero(model: &str) -> Option<(Model, Vec<Feed>)> {
    let (model, feeds) = (shared(&format!("models/{model}"))?, shared("data/silero_feeds")?);
    let mut files: Vec<_> = std::fs::read_dir(feeds).unwrap().flatten().map(|e| e.path()).collect();
    files.sort();
    let feeds = files.iter().map(|f| read_npz(f).unwrap().into_iter().collect()).collect();
    Some((load(&model).unwrap(), feeds))
}

/// (feed, speech probability, mean size of the next state, and its first elements), from ONNX Runtime 1.32.
const SILERO: &[(usize, f64, f64, [f64; 3])] = &[
    (0, 0.208_342_105, 0.191_836_521, [-0.254_390_895, 0.110_192_642, 0.042_852_703]),
    (9, 0.999_964_952, 0.645_036_459, [-0.584_944_487, -0.000_386_816, 0.875_342_190]),
    (20, 0.015_597_910, 0.604_741_216, [0.331_095_785, 0.266_839_772, 0.004_204_129]),
    (33, 0.999_894_798, 0.678_430_319, [-0.298_426_419, -0.000_101_242, 0.613_784_730]),
    (47, 0.999_746_919, 0.758_621_216, [-0.403_776_884, -0.000_325_474, 0.971_518_517]),
    (63, 0.263_944_894, 0.593_033_075, [0.034_287_106, 0.017_937_828, 0.087_012_798]),
];

#[test]
fn silero_is_what_onnx_runtime_makes_of_it() {
    for name in ["silero_vad.onnx", "silero_vad_16k_op15.onnx"] {
        let Some((model, feeds)) = silero(name) else { return };
        let runner = Runner::new(&model, &RunnerOptions::default()).unwrap();
        for &(k, probability, size, first) in SILERO {
            let outputs = runner.run(&feeds[k]).unwrap();
            let numbers = |k: usize| outputs[k].as_f32().unwrap().iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let (got, state) = (numbers(0), numbers(1));
            assert_eq!((outputs[0].shape(), outputs[1].shape()), (&[1, 1][..], &[2, 1, 128][..]));
            let mean = state.iter().map(|x| x.abs()).sum::<f64>() / state.len() as f64;
            let pairs = [(got[0], probability), (mean, size)].into_iter().chain(state.iter().copied().zip(first));
            for (got, want) in pairs {
                assert!((got - want).abs() <= 1e-4 * want.abs() + 1e-6, "{name}, feed {k}: {got}, expected {want}");
            }
        }
    }
}
