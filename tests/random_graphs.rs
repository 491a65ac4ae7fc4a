//! Random valid models: what they compute, and their interface, is the same after simplification.

#[path = "common/choices.rs"]
mod choices;
#[path = "common/graphs.rs"]
mod graphs;
#[path = "common/judge.rs"]
mod judge;
#[path = "common/layout.rs"]
mod layout;

use graphs::generate;
use judge::judge;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Models to make: as many as a run of all tests can afford; SARDONYX_RANDOM_GRAPHS asks for more.
fn cases() -> u32 {
    std::env::var("SARDONYX_RANDOM_GRAPHS").ok().and_then(|n| n.parse().ok()).unwrap_or(256)
}

#[test]
fn random_graphs_compute_the_same_after_simplification() {
    let (mut made, mut executed) = (0, 0);
    let config = Config { cases: cases(), failure_persistence: None, ..Config::default() };
    let mut runner =
        TestRunner::new_with_rng(config, proptest::test_runner::TestRng::deterministic_rng(Default::default()));
    let counts = std::cell::RefCell::new((&mut made, &mut executed));
    let result = runner.run(&proptest::collection::vec(any::<u8>(), 1..160), |bytes| {
        let ran = judge(&generate(&bytes));
        let mut counts = counts.borrow_mut();
        *counts.0 += 1;
        *counts.1 += u32::from(ran);
        Ok(())
    });
    result.unwrap_or_else(|e| panic!("{e}"));
    // A generator whose models cannot be executed tests nothing.
    assert!(executed * 10 >= made * 7, "only {executed} of {made} models were executed");
}

/// The generator makes what it is there for.
#[test]
fn random_graphs_have_what_rules_stumble_over() {
    let mut runner = TestRunner::deterministic();
    let strategy = proptest::collection::vec(any::<u8>(), 160);
    let texts: Vec<String> = (0..400)
        .map(|_| generate(&proptest::strategy::ValueTree::current(&strategy.new_tree(&mut runner).unwrap())).text)
        .collect();
    let wanted = [
        "If ",
        "Loop ",
        "my.Relu",
        "RandomNormalLike",
        "Constant ",
        "[0,3]",
        "[N,",
        "dflt",
        "BatchNormalization",
        "Conv ",
        "Split ",
        "Slice ",
        "Pad ",
        "Transpose ",
        "Clip ",
        "(x0",
        "Shape ",
        "Where ",
        "Gemm ",
        "Cast ",
    ];
    for op in wanted {
        assert!(texts.iter().filter(|t| t.contains(op)).count() >= 8, "hardly any {op}");
    }
    for opset in 9..=23 {
        assert!(texts.iter().any(|t| t.contains(&format!("\"\" : {opset},"))), "no operator set {opset}");
    }
}
