//! Outputs, defaults, names, bodies, functions, unknown and random operators, and what no pass reads.

use crate::judge::On::{Nothing, Plain, Special};
use crate::judge::{occurrences, parse, simplified};
use crate::traps;
use sardonyx::io::model_to_proto;
use sardonyx::io::{decode_model, model_from_proto};
use sardonyx::proto;

const RANDOM: crate::judge::On = Nothing("random");
const UNKNOWN: crate::judge::On = Nothing("an operator that nobody knows");

traps! {
    two_outputs_of_equal_nodes: 17, Special, "g (float[12] x) => (float[12] a, float[12] b) { a = Neg (x) b = Neg (x) }";
    one_value_that_is_two_outputs: 17, Special, "g (float[12] x) => (float[12] a, float[12] b) { a = Neg (x) b = Identity (a) }";
    input_straight_to_output: 17, Special, "g (float[12] x) => (float[12] x, float[12] y) { y = Neg (x) }";
    input_to_output_by_identity: 17, Special, "g (float[12] x) => (float[12] y) { y = Identity (x) }";
    input_to_two_outputs: 17, Special, "g (float[12] x) => (float[12] a, float[12] b) { a = Identity (x) b = Identity (x) }";
    initializer_that_is_an_output: 17, Plain, "g (float[2] x) => (float[2] y, float[2] w) <float[2] w = {1,1}> { y = Mul (x, w) }";
    equal_initializers_that_are_outputs: 17, Plain,
        "g (float[2] x) => (float[2] y, float[2] v, float[2] w) <float[2] v = {2,3}, float[2] w = {2,3}> { a = Mul (x, w) y = Mul (a, v) }";
    constant_node_that_is_an_output: 17, Plain,
        "g (float[2] x) => (float[2] y, float[2] w) { w = Constant <value = float[2] {1,1}> () y = Mul (x, w) }";
    folded_node_that_is_an_output: 17, Plain,
        "g (float[2] x) => (float[2] y, float[2] w) <float[2] a = {1,2}> { w = Neg (a) y = Mul (x, w) }";
    every_output_is_constant: 17, Plain, "g (float[2] x) => (int64[1] y) { y = Shape (x) }";
    default_that_a_caller_may_override: 17, Plain,
        "<ir_version: 8, opset_import: [\"\" : 17]> g (float[2] x, float[2] w = {1,1}) => (float[2] y, float[2] c)
         <float[2] z = {0,0}> { y = Mul (x, w) c = Sub (w, z) }", "Mul" 1;
    default_that_is_a_shape: 17, Plain,
        "<ir_version: 8, opset_import: [\"\" : 17]> g (float[4] x, int64[2] s = {2,2}) => (float[M,K] y) { y = Reshape (x, s) }", "Reshape" 1;
    defaults_of_the_first_format_are_constants: 7, Plain,
        "<ir_version: 3, opset_import: [\"\" : 7]> g (float[2] x, float[2] w = {1,1}) => (float[2] y) { m = Mul (x, w) y = Neg (m) }", "Mul" 0;
    input_that_nothing_uses: 17, Plain, "g (float[2] x, float[3] unused) => (float[2] y) { y = Neg (x) }";
    input_that_nothing_uses_any_more: 17, Plain,
        "g (float[2] x, float[2] z, bool[2] k) => (float[2] y) <bool c = {1}> { n = Neg (z) y = Where (c, x, x) }";
    names_that_look_made_up: 17, Plain,
        "g (float[2] x) => (float[2] y, float[2] a_1) <float[2] w = {1,2}, float[2] w_1 = {3,4}, float[2] w_folded = {5,6}>
         { a = Neg (w) b = Neg (w_1) c = Neg (w_folded) a_1 = Add (a, x) d = Add (a_1, b) y = Add (d, c) }";
    random_nodes_are_not_merged: 17, RANDOM,
        "g (float[2] x) => (float[2] y) { a = RandomNormalLike (x) b = RandomNormalLike (x) y = Sub (a, b) }", "RandomNormalLike" 2;
    random_nodes_of_one_seed_are_not_merged: 17, RANDOM,
        "g (float[2] x) => (float[2] y) { a = RandomUniformLike <seed = 1.0> (x) b = RandomUniformLike <seed = 1.0> (x) y = Sub (a, b) }",
        "RandomUniformLike" 2;
    random_nodes_are_not_folded: 17, RANDOM,
        "g (float[2] x) => (float[2] y, float[2] z) <float[2] w = {0.5,0.5}>
         { a = RandomNormal <shape = [2]> () b = Bernoulli (w) y = Add (x, a) z = Add (x, b) }", "RandomNormal" 1, "Bernoulli" 1;
    random_draws_are_not_folded: 17, RANDOM,
        "g (float[2] x) => (int32[1,3] y) <float[1,2] w = {0.5,0.5}> { y = Multinomial <sample_size = 3> (w) }", "Multinomial" 1;
    random_condition_is_not_folded: 17, RANDOM,
        "g (float[2] x) => (float[2] y)
         { r = RandomUniform <shape = [1]> () b = Cast <to = 9> (r)
           y = If (b) <then_branch = t () => (float[2] p) { p = Neg (x) }, else_branch = e () => (float[2] q) { q = Abs (x) }> }",
        "If" 1, "RandomUniform" 1;
    unknown_operator_named_like_a_known_one: 17, UNKNOWN,
        "<ir_version: 8, opset_import: [\"\" : 17, \"my\" : 1]> g (float[2] x) => (float[2] y, float[2] z)
         { a = my.Identity (x) b = my.Relu (a) y = my.Relu (b) z = my.Dropout (x) }", "Identity" 1, "Relu" 2, "Dropout" 1;
    unknown_operators_are_not_merged: 17, UNKNOWN,
        "<ir_version: 8, opset_import: [\"\" : 17, \"my\" : 1]> g (float[2] x) => (float[2] y)
         { a = my.Foo (x) b = my.Foo (x) y = Sub (a, b) }", "Foo" 2;
    unknown_operator_of_constants_is_not_folded: 17, UNKNOWN,
        "<ir_version: 8, opset_import: [\"\" : 17, \"my\" : 1]> g (float[2] x) => (float[2] y) <float[2] w = {0,0}>
         { a = my.Add (w, w) y = Add (x, a) }", "Add" 2;
    unknown_version_of_a_known_domain: 17, UNKNOWN,
        "<ir_version: 8, opset_import: [\"\" : 17, \"my\" : 1]> g (float[2] x) => (float[2] y)
         { y = my.Split:special <axis = 0, body = b (float[2] p) => (float[2] q) { q = Neg (x) }> (x, , x) }", "Split" 1, "Neg" 1;
    // The model's own function goes before the standard's operator of that name.
    function_that_overrides_an_operator: 17, Nothing("executing it is the runtime's business, see its own tests"),
        "<ir_version: 10, opset_import: [\"\" : 17, \"local\" : 1]> g (float[2] x) => (float[2] y) { a = local.Identity (x) y = local.Identity (a) }
         <domain: \"local\", opset_import: [\"\" : 17]> Identity (p) => (q) { q = Neg (p) }";
    function_that_is_random: 17, RANDOM,
        "<ir_version: 10, opset_import: [\"\" : 17, \"local\" : 1]> g (float[2] x) => (float[2] y)
         { a = local.Noise (x) b = local.Noise (x) y = Sub (a, b) }
         <domain: \"local\", opset_import: [\"\" : 17]> Noise (p) => (q) { q = RandomNormalLike (p) }";
    captured_by_both_branches: 17, Plain,
        "g (bool c, float[2] x) => (float[2] y) <float[2] w = {1,2}>
         { a = Add (x, w) i = Identity (a)
           y = If (c) <then_branch = t () => (float[2] p) { p = Neg (i) }, else_branch = e () => (float[2] q) { q = Abs (i) }> }";
    captured_and_nothing_else: 17, Plain,
        "g (bool c, float[2] x) => (float[2] y)
         { a = Neg (x)
           y = If (c) <then_branch = t () => (float[2] p) { p = Identity (a) }, else_branch = e () => (float[2] q) { q = Identity (x) }> }";
    same_names_in_both_branches: 17, Plain,
        "g (bool c, float[2] x) => (float[2] y)
         { y = If (c) <then_branch = t () => (float[2] r) { m = Neg (x) r = Abs (m) }, else_branch = e () => (float[2] r) { m = Abs (x) r = Neg (m) }> }";
    captured_through_two_bodies: 17, Plain,
        "g (bool c, bool d, float[2] x) => (float[2] y) <float[2] w = {1,1}>
         { a = Mul (x, w)
           y = If (c) <then_branch = t () => (float[2] p)
             { p = If (d) <then_branch = tt () => (float[2] r) { r = Neg (a) }, else_branch = te () => (float[2] s) { s = Add (a, w) }> },
             else_branch = e () => (float[2] q) { q = Abs (a) }> }";
    constant_condition_inside_a_branch: 17, Plain,
        "g (bool c, float[2] x) => (float[2] y) <bool no = {0}>
         { y = If (c) <then_branch = t () => (float[2] p)
             { p = If (no) <then_branch = tt () => (float[2] r) { r = Neg (x) }, else_branch = te () => (float[2] s) { s = Abs (x) }> },
             else_branch = e () => (float[2] q) { q = Sqrt (x) }> }", "If" 1;
    branch_that_is_an_initializer: 17, Plain,
        "g (float[2] x) => (float[2] y, float[2] z) <bool no = {0}>
         { i = If (no) <then_branch = t () => (float[2] p) { p = Neg (x) }, else_branch = e () => (float[2] q) <float[2] q = {3,4}> { }>
           y = Add (x, i)
           z = If (no) <then_branch = t2 () => (float[2] p2) { p2 = Neg (x) }, else_branch = e2 () => (float[2] q2) <float[2] q2 = {5,6}> { }> }";
    branch_whose_names_are_taken_when_it_moves_out: 17, Plain,
        "g (float[2] x) => (float[2] y) <bool yes = {1}>
         { a = If (yes) <then_branch = t () => (float[2] r) { m = Neg (x) r = Exp (m) }, else_branch = e () => (float[2] r) { r = Neg (x) }>
           b = If (yes) <then_branch = t () => (float[2] r) { m = Abs (x) r = Exp (m) }, else_branch = e () => (float[2] r) { r = Neg (x) }>
           y = Sub (a, b) }", "If" 0;
    // It is 1 before the first round only.
    carried_value_that_starts_constant: 17, Plain,
        "g (float[2] x) => (float[2] y) <int64 n = {3}, bool yes = {1}, float one = {1}, float two = {2}>
         { k, y = Loop (n, yes, one, x) <body = b (int64 i, bool c, float f, float[2] a) => (bool d, float g, float[2] r)
             { d = Identity (c) g = Mul (f, two) r = Mul (a, f) }> }";
    loop_of_no_rounds: 17, Plain,
        "g (float[2] x) => (float[2] y) <int64 n = {0}, bool yes = {1}>
         { y = Loop (n, yes, x) <body = b (int64 i, bool c, float[2] a) => (bool d, float[2] r) { d = Identity (c) r = Neg (a) }> }";
    loop_that_ends_by_its_condition: 17, Plain,
        "g (float[2] x) => (float[2] y) <int64 n = {9}, bool yes = {1}, int64 two = {2}>
         { y = Loop (n, yes, x) <body = b (int64 i, bool c, float[2] a) => (bool d, float[2] r) { d = Less (i, two) r = Exp (a) }> }";
    random_node_in_a_loop_is_not_lifted: 17, RANDOM,
        "g (float[2] x) => (float[2] y) <int64 n = {3}, bool yes = {1}>
         { y = Loop (n, yes, x) <body = b (int64 i, bool c, float[2] a) => (bool d, float[2] r)
             { d = Identity (c) s = RandomNormal <shape = [2]> () r = Add (a, s) }> }", "RandomNormal" 1, "Loop" 1;
    input_of_a_body_straight_to_its_output: 17, Plain,
        "g (float[2] x) => (float[2] y, float[3,2] s) <int64 n = {3}, bool yes = {1}>
         { y, s = Loop (n, yes, x) <body = b (int64 i, bool c, float[2] a) => (bool c, float[2] r, float[2] a) { r = Exp (a) }> }";
    division_by_zero_is_not_folded_into_a_crash: 17, Nothing("dividing integers by zero is undefined"),
        "g (int32[2] x) => (int32[2] y) <int32[2] a = {1,2}, int32[2] z = {0,0}> { d = Div (a, z) y = Add (x, d) }";
    index_out_of_range_is_not_folded_into_a_crash: 17, Nothing("an index out of range is an error"),
        "g (float[1] x) => (float[1] y) <float[2] a = {1,2}, int64[1] i = {7}> { d = Gather (a, i) y = Add (x, d) }", "Gather" 1;
    strings_stay: 17, Nothing("tract has no tensors of strings"),
        "g (float[2] x) => (float[2] y, string[2] s) <string[2] a = {\"b\", \"\"}> { y = Neg (x) s = Identity (a) }";
    sequences_stay: 17, Nothing("tract has no sequences"),
        "g (float[2] x) => (float[2] y) <int64 i = {0}> { s = SequenceConstruct (x, x) t = Identity (s) y = SequenceAt (t, i) }", "SequenceAt" 1;
    weights_of_two_products: 17, Plain,
        "g (float[2,2] x) => (float[2,2] y, float[2,2] z) <float[2,2] w = {1,2,3,4}, float two = {2}>
         { m = MatMul (x, w) y = Mul (m, two) t = Transpose (w) z = MatMul (x, t) }";
    weight_that_a_body_uses_too: 17, Plain,
        "g (bool c, float[1,1,2,2] x) => (float[1,2,2,2] y) <float[2,1,1,1] w = {1,2}, float[2,1,1] f = {2,3}>
         { m = Conv (x, w) n = Mul (m, f)
           y = If (c) <then_branch = t () => (float[1,2,2,2] p) { p = Conv (x, w) }, else_branch = e () => (float[1,2,2,2] q) { q = Neg (n) }> }";
}

/// Whatever the model says about itself, and where its values come from, is said afterwards too.
#[test]
fn what_no_pass_reads_is_kept() {
    let text = "<ir_version: 9, opset_import: [\"\" : 17, \"my\" : 3], producer_name: \"p\", producer_version: \"v\", domain: \"d\",
        model_version: 7, doc_string: \"doc\", metadata_props: [\"k\": \"v\"]>
        g (float[2] x) => (float[2] y) { a = Identity (x) y = Neg (a) }";
    let mut message = model_to_proto(&parse(text, 17)).unwrap();
    let graph = message.graph.as_mut().unwrap();
    graph.doc_string = Some("about the graph".into());
    let entry = proto::StringStringEntryProto { key: Some("graph key".into()), value: Some("1".into()) };
    graph.metadata_props.push(entry.clone());
    let neg = graph.node.iter_mut().find(|n| n.op_type() == "Neg").unwrap();
    neg.doc_string = Some("about the node".into());
    neg.metadata_props.push(entry.clone());
    graph
        .quantization_annotation
        .push(proto::TensorAnnotation { tensor_name: Some("y".into()), quant_parameter_tensor_names: vec![entry] });
    graph.output[0].doc_string = Some("about the output".into());
    let result = model_to_proto(&simplified(&model_from_proto(message.clone()).unwrap())).unwrap();
    let graphs = [message.graph.clone().unwrap(), result.graph.clone().unwrap()];
    let [before, after] = [message, result].map(|m| proto::ModelProto { graph: None, ..m });
    assert_eq!(before, after);
    let [before, after] = graphs.map(|g| {
        let neg = g.node.into_iter().find(|n| n.op_type() == "Neg").unwrap();
        (
            g.name,
            g.doc_string,
            g.metadata_props,
            g.quantization_annotation,
            g.output,
            neg.doc_string,
            neg.metadata_props,
        )
    });
    assert_eq!(before, after);
}

/// A node of an unknown domain, attributes of every kind and absent inputs included, is the same message afterwards.
#[test]
fn unknown_nodes_are_kept_byte_for_byte() {
    let text = "<ir_version: 9, opset_import: [\"\" : 17, \"my.own\" : 3]> g (float[2] x) => (float[2] y, float[2] z) <float[2] w = {1,1}>
        { a = Mul (x, w)
          [named] b, , c = my.own.Op:special <f = 1.5, i = -3, s = \"text\", fs = [1.0, nan], is: ints = [], ss = [\"a\", \"\"],
              t = float16[2] {1, 2}, ts = [int64 {1}, string[1] {\"x\"}], ty = float[N,2]> (x, , w, \"\")
          y = Neg (b) z = Identity (c) }";
    let original = parse(text, 17);
    let node = |m: &sardonyx::ir::Model| {
        let nodes = model_to_proto(m).unwrap().graph.unwrap().node;
        let node = nodes.into_iter().find(|n| n.domain() == "my.own").unwrap();
        format!("{node:?}")
    };
    let result = simplified(&original);
    assert_eq!(node(&original).replace("\"c\"", "\"z\""), node(&result).replace("\"c\"", "\"z\""));
}

/// A sparse initializer keeps its form, and folding what it is used with keeps its value.
#[test]
fn sparse_initializers_are_kept_or_folded_rightly() {
    let text = "g (float[4] x) => (float[4] y) <float[4] w = {0,0,0,0}> { y = Mul (x, w) }";
    let mut message = model_to_proto(&parse(text, 17)).unwrap();
    let graph = message.graph.as_mut().unwrap();
    let mut values = graph.initializer.remove(0);
    (values.dims, values.raw_data, values.float_data) = (vec![1], None, vec![2.5]);
    let indices = proto::TensorProto { dims: vec![1], data_type: Some(7), int64_data: vec![2], ..Default::default() };
    graph.sparse_initializer.push(proto::SparseTensorProto {
        values: Some(values),
        indices: Some(indices),
        dims: vec![4],
    });
    let result = simplified(&model_from_proto(message.clone()).unwrap());
    assert_eq!(occurrences(&result.graph, "Mul"), 1);
    assert_eq!(
        model_to_proto(&result).unwrap().graph.unwrap().sparse_initializer,
        message.graph.unwrap().sparse_initializer
    );
}

/// What was simplified is simplified: the second run writes the same file.
#[test]
fn simplifying_twice_changes_nothing() {
    let text = "g (float[N,3,4] x, bool c) => (float[N,12] y, float[N,3,4] z) <int64 i = {0}, int64[1] a = {0}, int64[1] r = {-1}, float one = {1}>
        { s = Shape (x) n = Gather (s, i) u = Unsqueeze (n, a) t = Concat <axis = 0> (u, r) y = Reshape (x, t) m = Mul (x, one)
          z = If (c) <then_branch = p () => (float[N,3,4] v) { v = Identity (m) }, else_branch = q () => (float[N,3,4] w) { w = Neg (m) }> }";
    let once = simplified(&parse(text, 17));
    let bytes = |m| prost::Message::encode_to_vec(&model_to_proto(m).unwrap());
    let again = decode_model(bytes(&once).into()).unwrap();
    assert_eq!(bytes(&once), bytes(&simplified(&again)));
}
