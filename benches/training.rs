//! What a training step costs: forward, cross-entropy, backward. `cargo bench --bench training [-- FILTER]`.
//!
//! On the digits fixtures and, where `../shared/models` is present, ResNet-20 on 32x32 images; batch 64, two threads.

#![allow(missing_docs)] // criterion's macros make functions

use criterion::{Criterion, criterion_group, criterion_main};
use sardonyx::io::{Dataset, Feed, load};
use sardonyx::recover::loss::cross_entropy;
use sardonyx::recover::{Network, NetworkOptions, Samples, Seed, keep_freed};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

const BATCH: usize = 64;
const THREADS: usize = 2;

fn models() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let digits = ["resnet", "mobile", "vit", "gru"].map(|n| root.join(format!("fixtures/digits/digits_{n}.onnx")));
    let shared = root.ancestors().skip(1).map(|p| p.join("shared/models/resnet20_cifar10_ts.onnx"));
    digits.into_iter().chain(shared).filter(|p| p.exists()).collect()
}

fn feed(path: &Path) -> Feed {
    let model = load(path).expect("a model");
    let data = Dataset::random(&model.graph, BATCH, 0).expect("made-up input");
    let samples = Samples::read(&data).expect("samples");
    samples.joined(&(0..BATCH).collect::<Vec<_>>()).expect("a batch")
}

fn steps(c: &mut Criterion) {
    keep_freed(); // as the program does before it trains
    let pool = rayon::ThreadPoolBuilder::new().num_threads(THREADS).build().expect("threads");
    let mut group = c.benchmark_group("step");
    group.sample_size(10).measurement_time(Duration::from_secs(8));
    for path in models() {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let network =
            Network::<f32>::new(&load(&path).expect("a model"), &NetworkOptions::default()).expect("a network");
        let (parameters, feed) = (network.parameters().expect("parameters"), feed(&path));
        let labels: Vec<i64> = (0..BATCH as i64).map(|i| i % 10).collect();
        for training in [false, true] {
            let kind = if training { "batch statistics" } else { "stored statistics" };
            let step = || {
                let tape = network.forward(&parameters, &feed, training).expect("forward");
                let loss = cross_entropy(tape.output(0).expect("scores"), &labels).expect("a loss");
                tape.backward(vec![Seed { output: 0, gradient: loss.gradient }]).expect("backward")
            };
            group.bench_function(format!("{name}/{kind}"), |b| b.iter(|| pool.install(|| black_box(step()))));
        }
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
