//! Gradients and importance against PyTorch's, in f64 there and in f32 here.

use sardonyx::io::{self, Dataset, Feed, read_npz, write_npz};
use sardonyx::ir::{Model, Tensor};
use sardonyx::math::Array;
use sardonyx::ops::gradient::Element;
use sardonyx::recover::loss::cross_entropy;
use sardonyx::recover::{ImportanceOptions, Measure, Network, NetworkOptions, Parameters, Samples, Seed, importance};
use sardonyx::runtime::{Runner, RunnerOptions};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files beside the repository; `None`, with the reason printed, where they are absent.
fn shared(name: &str) -> Option<PathBuf> {
    let found = root().ancestors().skip(1).map(|p| p.join("shared").join(name)).find(|p| p.exists());
    if found.is_none() {
        eprintln!("skipped: shared/{name} is not there");
    }
    found
}

fn relative_l2(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let off: f64 = got.iter().zip(want).map(|(g, w)| square(g - w)).sum();
    (off / want.iter().map(|&w| square(w)).sum::<f64>().max(1e-30)).sqrt()
}

/// Wanted arrays by initializer. Where the exporter merged equal tensors, names that no initializer has any more are those
/// of Identity nodes: their gradients belong to the initializer before them.
fn wanted(model: &Model, arrays: &BTreeMap<String, Tensor>, kind: &str) -> BTreeMap<String, Vec<Vec<f32>>> {
    let graph = &model.graph;
    let mut found: BTreeMap<String, Vec<Vec<f32>>> = BTreeMap::new();
    for (key, t) in arrays {
        let Some(name) = key.strip_prefix(kind).filter(|n| *n != "image") else { continue };
        let v = graph.find(name).unwrap_or_else(|| panic!("no value {name}"));
        let source = match graph.producer(v) {
            Some((id, _)) => graph.input(id, 0).unwrap(),
            None => v,
        };
        found.entry(graph.name(source).to_string()).or_default().push(t.to_f32().unwrap());
    }
    found
}

/// In f64, where only the reference's own f32 rounds; and, where `single` says so, in f32, in which training runs. Among
/// the ten million Relus of the larger model some lie so close to 0 that f32 turns them over, and their gradients with them.
fn compare(model: &Path, reference: &Path, single: bool) {
    let model = io::load(model).unwrap();
    let arrays: BTreeMap<String, Tensor> = read_npz(reference).unwrap().into_iter().collect();
    let off = gradients::<f64>(&model, &arrays);
    println!("{}: worst in f64 {off:?}, in f32 {:?}", reference.display(), gradients::<f32>(&model, &arrays));
    assert!(off.0 < 1e-5, "f64 {off:?}");
    let squares = squares(&model, &arrays);
    println!("worst of the mean squared gradients in f64 {squares:?}");
    assert!(squares.0 < 1e-5, "f64 {squares:?}");
    if single {
        let off = gradients::<f32>(&model, &arrays);
        assert!(off.0 < 1e-4, "f32 {off:?}");
        fisher(&model, &arrays);
    }
}

/// The mean over samples of the squared gradient of each sample, against the reference.
fn squares(model: &Model, arrays: &BTreeMap<String, Tensor>) -> (f64, String) {
    let (image, labels) = (&arrays["image"], arrays["label"].to_i64().unwrap());
    let network = Network::<f64>::new(model, &NetworkOptions::default()).unwrap();
    let parameters = network.parameters().unwrap();
    let mut sums: Vec<Vec<f64>> = parameters.values().iter().map(|w| vec![0.0; w.len()]).collect();
    let pixels = image.to_f32().unwrap();
    let each = pixels.len() / labels.len();
    let dims = [&[1], &image.dims[1..]].concat();
    for (one, label) in pixels.chunks(each).zip(&labels) {
        let feed = Feed::from([("image".to_string(), Tensor::from_f32(&dims, one))]);
        let tape = network.forward(&parameters, &feed, false).unwrap();
        let gradient = cross_entropy(tape.output(0).unwrap(), &[*label]).unwrap().gradient;
        let grads = tape.backward(vec![Seed { output: 0, gradient }]).unwrap().parameters;
        for (sum, g) in sums.iter_mut().zip(&grads).filter_map(|(s, g)| Some((s, g.as_ref()?))) {
            sum.iter_mut().zip(g.data()).for_each(|(s, g)| *s += g * g / labels.len() as f64);
        }
    }
    let mut worst = (0.0, String::new());
    for (name, parts) in wanted(model, arrays, "fisher/") {
        // The square of a sum is not the sum of squares: merged tensors have no reference.
        let [want] = &parts[..] else { continue };
        let k = parameters.list().iter().position(|p| *p.name == *name).unwrap();
        let off = relative_l2(&sums[k].iter().map(|&s| s as f32).collect::<Vec<_>>(), want);
        if off > worst.0 {
            worst = (off, name);
        }
    }
    worst
}

/// The largest relative L2 from the reference, and whose it is.
fn gradients<T: Element>(model: &Model, arrays: &BTreeMap<String, Tensor>) -> (f64, String) {
    let labels = arrays["label"].to_i64().unwrap();
    let options = NetworkOptions { parameters: None, observe: vec!["image".into()] };
    let network = Network::<T>::new(model, &options).unwrap();
    let parameters = network.parameters().unwrap();
    let feed = Feed::from([("image".to_string(), arrays["image"].clone())]);
    assert_eq!(network.frozen(&feed).unwrap(), []);
    let tape = network.forward(&parameters, &feed, false).unwrap();
    let loss = cross_entropy(tape.output(0).unwrap(), &labels).unwrap();
    let want_loss = f64::from_le_bytes(arrays["loss"].bytes().unwrap()[..8].try_into().unwrap());
    assert!((loss.value - want_loss).abs() < 1e-5 * want_loss.max(1.0), "loss {} for {want_loss}", loss.value);
    let grads = tape.backward(vec![Seed { output: 0, gradient: loss.gradient }]).unwrap();
    let single = |a: &Array<T>| -> Vec<f32> { a.data().iter().map(|x| x.wide() as f32).collect() };
    let image = single(grads.observed[0].as_ref().unwrap());
    let mut worst = (relative_l2(&image, &arrays["grad/image"].to_f32().unwrap()), "image".to_string());
    for (name, parts) in wanted(model, arrays, "grad/") {
        let k = parameters.list().iter().position(|p| *p.name == *name).unwrap();
        let got = grads.parameters[k].as_ref().unwrap_or_else(|| panic!("no gradient of {name}"));
        let sum: Vec<f32> = (0..got.len()).map(|i| parts.iter().map(|p| p[i]).sum()).collect();
        let off = relative_l2(&single(got), &sum);
        if off > worst.0 {
            worst = (off, name);
        }
    }
    worst
}

fn fisher(model: &Model, arrays: &BTreeMap<String, Tensor>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.npz");
    let data: Vec<_> = ["image", "label"].iter().map(|k| (k.to_string(), arrays[*k].clone())).collect();
    write_npz(&path, &data).unwrap();
    let data = Dataset::open(&path, &model.graph, Some("label")).unwrap();
    let options = ImportanceOptions { labels: true, ..ImportanceOptions::default() };
    let (found, frozen) = importance(model, &data, &options, &|| {}).unwrap();
    assert!(frozen.is_empty());
    let (mut worst, mut compared) = (0.0f64, 0);
    for (name, parts) in wanted(model, arrays, "fisher/") {
        // The square of a sum is not the sum of squares: merged tensors have no reference.
        let [want] = &parts[..] else { continue };
        let got = found.iter().find(|i| *i.parameter.name == *name).unwrap();
        let off = relative_l2(&got.fisher, want);
        assert!(off < 1e-4, "fisher {name}: {off:e}");
        worst = worst.max(off);
        compared += 1;
    }
    assert!(compared > 10);
    println!("{compared} Fisher tensors, the worst {worst:.1e}");
}

#[test]
fn digits_resnet_has_pytorchs_gradients() {
    if let Some(reference) = shared("digits/reference_gradients_resnet.npz") {
        compare(&root().join("fixtures/digits/digits_resnet.onnx"), &reference, true);
    }
}

#[test]
fn digits_mobile_has_pytorchs_gradients() {
    if let Some(reference) = shared("digits/reference_gradients_mobile.npz") {
        compare(&root().join("fixtures/digits/digits_mobile.onnx"), &reference, true);
    }
}

#[test]
fn resnet20_has_pytorchs_gradients() {
    if let (Some(model), Some(reference)) =
        (shared("models/resnet20_cifar10_ts.onnx"), shared("data/reference_gradients_resnet20.npz"))
    {
        compare(&model, &reference, false);
    }
}

/// A loss that is not symmetric: the outputs weighted with a fixed sequence.
fn weighted<T: Element>(y: &Array<T>) -> (f64, Array<T>) {
    let weight = |i: usize| ((i * 7919 % 1009) as f64 / 504.5) - 1.0;
    let value = y.data().iter().enumerate().map(|(i, y)| y.wide() * weight(i)).sum();
    (value, Array::new(y.dims(), (0..y.len()).map(|i| T::of(weight(i))).collect()))
}

/// The whole model: the forward pass in f32 against tract, and in f64 the gradient along a direction in the space of all
/// parameters against a central difference.
fn whole(path: &Path, data: &Path, samples: usize) {
    let place = path.display();
    let model = io::load(path).unwrap();
    let data = Dataset::open(data, &model.graph, None).unwrap();
    let feed = Samples::read(&data).unwrap().joined(&(0..samples).collect::<Vec<_>>()).unwrap();
    let single = Network::<f32>::new(&model, &NetworkOptions::default()).unwrap();
    assert_eq!(single.frozen(&feed).unwrap(), [], "{place}");
    let tape = single.forward(&single.parameters().unwrap(), &feed, false).unwrap();
    let want = Runner::new(&model, &RunnerOptions::default()).unwrap().run(&feed).unwrap();
    let off = relative_l2(tape.output(0).unwrap().data(), &want[0].as_f32().unwrap());
    assert!(off < 1e-5, "{place}: forward differs from tract by {off:e}");
    let network = Network::<f64>::new(&model, &NetworkOptions::default()).unwrap();
    let parameters = network.parameters().unwrap();
    let loss = |p: &Parameters<f64>| weighted(network.forward(p, &feed, false).unwrap().output(0).unwrap()).0;
    let tape = network.forward(&parameters, &feed, false).unwrap();
    let gradient = weighted(tape.output(0).unwrap()).1;
    let grads = tape.backward(vec![Seed { output: 0, gradient }]).unwrap().parameters;
    let direction = |k: usize, i: usize| ((i * 31 + k * 17) % 13) as f64 - 6.0;
    let slope: f64 = grads
        .iter()
        .enumerate()
        .flat_map(|(k, g)| {
            g.iter().flat_map(move |g| g.data().iter().enumerate().map(move |(i, g)| g * direction(k, i)))
        })
        .sum();
    let moved = |by: f64| {
        let mut p = parameters.clone();
        for (k, w) in p.values_mut().iter_mut().enumerate().filter(|(k, _)| grads[*k].is_some()) {
            w.data_mut().iter_mut().enumerate().for_each(|(i, w)| *w += by * direction(k, i));
        }
        loss(&p)
    };
    // Small, so that no Relu turns over.
    let step = 1e-9;
    let difference = (moved(step) - moved(-step)) / (2.0 * step);
    assert!(
        (slope - difference).abs() < 1e-4 * difference.abs().max(1.0),
        "{place}: {slope}, by differences {difference}"
    );
    println!("{place}: forward {off:.1e} from tract, slope {slope} ({difference} by differences)");
}

#[test]
fn whole_digits_models() {
    for name in ["resnet", "mobile", "vit", "gru", "resnet_dynamo", "mobile_dynamo", "vit_dynamo", "gru_dynamo"] {
        let model = root().join(format!("fixtures/digits/digits_{name}.onnx"));
        whole(&model, &root().join("fixtures/digits/digits_test.npz"), 5);
    }
}

#[test]
fn whole_sentence_model() {
    if let (Some(model), Some(data)) = (shared("models/minilm_ts.onnx"), shared("data/sentences_calib_256.npz")) {
        whole(&model, &data, 2);
    }
}

#[test]
fn importance_needs_no_labels_and_does_not_depend_on_threads() {
    let model = io::load(&root().join("fixtures/digits/digits_resnet.onnx")).unwrap();
    let mut data = Dataset::open(&root().join("fixtures/digits/digits_calib.npz"), &model.graph, None).unwrap();
    data.limit(20);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| importance(&model, &data, &ImportanceOptions::default(), &|| {}).unwrap().0)
    };
    let (one, three) = (run(1), run(3));
    for (a, b) in one.iter().zip(&three) {
        for measure in [Measure::Fisher, Measure::WeightedFisher, Measure::Taylor] {
            let weights = a.weights(measure);
            assert_eq!(weights, b.weights(measure), "{}", a.parameter.name);
            let total: f32 = weights.iter().sum();
            assert!(total.is_finite() && total > 0.0, "{} {measure:?}", a.parameter.name);
            for axis in 0..a.parameter.dims.len() {
                let channels = a.channels(measure, axis);
                assert_eq!(channels.len(), a.parameter.dims[axis]);
                let together: f32 = channels.iter().sum();
                // A sum of absolute values is at least the absolute value of the sum.
                let fits = if measure == Measure::Taylor {
                    together <= total * 1.001
                } else {
                    (together - total).abs() <= 1e-3 * total
                };
                assert!(fits, "{} {measure:?} {together} {total}", a.parameter.name);
            }
        }
    }
    assert!(
        importance(&model, &data, &ImportanceOptions { labels: true, ..ImportanceOptions::default() }, &|| {}).is_err()
    );
}
