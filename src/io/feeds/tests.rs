#![allow(clippy::print_stderr)] // a skipped test says why

use super::*;
use crate::io::{model_from_proto, write_npz};
use crate::ir::{DType, Dim, Model, TensorType, Type};
use std::fs;
use std::time::Instant;

/// A model whose graph has these inputs: (name, element type, dims with 0 for a symbolic "batch" and -1 for unknown).
fn model(inputs: &[(&str, DType, &[i64])]) -> Model {
    let dim = |&d: &i64| match d {
        0 => Dim::Sym("batch".into()),
        -1 => Dim::Unknown,
        d => Dim::Known(d),
    };
    let input = inputs.iter().map(|(name, elem, dims)| {
        let ty = Type::Tensor(TensorType { elem: *elem, shape: Some(dims.iter().map(dim).collect()) });
        proto::ValueInfoProto { name: Some(name.to_string()), r#type: Some(ty.to_proto()), ..Default::default() }
    });
    let graph = proto::GraphProto { input: input.collect(), ..Default::default() };
    model_from_proto(proto::ModelProto { graph: Some(graph), ..Default::default() }).unwrap()
}

fn ramp(dims: &[usize]) -> Tensor {
    let data: Vec<f32> = (0..dims.iter().product()).map(|i| i as f32).collect();
    Tensor::from_f32(dims, &data)
}

/// Opens arrays written to a file; the error as text.
fn open(m: &Model, arrays: &[(&str, Tensor)], label: Option<&str>) -> Result<Dataset, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.npz");
    let arrays: Vec<_> = arrays.iter().map(|(n, t)| (n.to_string(), t.clone())).collect();
    write_npz(&path, &arrays).unwrap();
    Dataset::open(&path, &m.graph, label).map_err(|e| {
        let text = e.to_string();
        assert!(text.contains("data.npz") && !text.contains('\n'), "{text}");
        text
    })
}

#[test]
fn a_free_batch_keeps_the_remainder_and_shares_memory() {
    let m = model(&[("x", DType::F32, &[0, 3])]);
    let arrays = [("x", ramp(&[5, 3])), ("y", Tensor::from_i32(&[5, 1], &[4, 3, 2, 1, 0]))];
    let mut data = open(&m, &arrays, Some("y")).unwrap();
    assert_eq!((data.len(), data.is_random(), data.labels()), (5, false, Some(&[4, 3, 2, 1, 0][..])));
    let batches = data.batches(2);
    assert_eq!((batches.len(), batches.size(), batches.dropped()), (3, 2, 0));
    let last = batches.feed(2).unwrap();
    assert_eq!(last["x"], Tensor::from_f32(&[1, 3], &[12.0, 13.0, 14.0]));
    assert_eq!(batches.samples(2), 4..5);
    assert!(batches.feed(3).is_err());
    let (a, b) = (batches.feed(1).unwrap(), batches.feed(1).unwrap());
    assert_eq!(a["x"].bytes().unwrap().as_ptr(), b["x"].bytes().unwrap().as_ptr(), "copied");
    data.limit(3);
    assert_eq!((data.len(), data.labels().unwrap().len(), data.batches(100).len()), (3, 3, 1));
    assert_eq!(data.batches(100).feed(0).unwrap()["x"].dims, [3, 3]);
}

#[test]
fn a_fixed_batch_drops_the_remainder_and_says_so() {
    let m = model(&[("x", DType::F32, &[2, 3])]);
    let mut data = open(&m, &[("x", ramp(&[5, 3]))], None).unwrap();
    let batches = data.batches(100);
    assert_eq!((batches.len(), batches.size(), batches.dropped()), (2, 2, 1));
    assert_eq!(batches.feed(1).unwrap()["x"].dims, [2, 3]);
    data.limit(1);
    assert_eq!(data.len(), 2, "one complete feed is the least");
    assert!(open(&m, &[("x", ramp(&[1, 3]))], None).unwrap_err().contains("takes 2 samples at once, the file has 1"));
}

#[test]
fn an_input_without_a_batch_axis_takes_one_sample_at_a_time() {
    let m = model(&[("x", DType::F32, &[3]), ("s", DType::F32, &[])]);
    let data = open(&m, &[("x", ramp(&[4, 3])), ("s", ramp(&[4]))], None).unwrap();
    let feed = data.batches(8).feed(2).unwrap();
    assert_eq!(feed["x"], Tensor::from_f32(&[3], &[6.0, 7.0, 8.0]));
    assert_eq!(feed["s"], Tensor::from_f32(&[], &[2.0]));
}

#[test]
fn every_misfit_is_one_clear_line() {
    let m = model(&[("x", DType::F32, &[0, 3])]);
    let fails = |t: Tensor, want: &str| {
        let text = open(&m, &[("x", t)], None).unwrap_err();
        assert!(text.contains(want), "{text}");
    };
    fails(Tensor::from_f64(&[1, 3], &[0.0; 3]), "holds double, the graph input takes float; save it with x.astype");
    fails(ramp(&[2, 4]), "has shape [2, 4], the graph input takes [batch, 3]: 4 where 3 is fixed");
    fails(ramp(&[2, 3, 1, 1]), "the ranks differ");
    fails(ramp(&[]), "axis 0 must be the sample");
    fails(ramp(&[0, 3]), "no samples");
    fails(Tensor::from_f32(&[2, 3], &[0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0]), "\"x\" holds NaN or infinity in sample 1");
    fails(Tensor::from_f32(&[1, 3], &[0.0, f32::INFINITY, 0.0]), "sample 0");
    let text = open(&m, &[("image", ramp(&[1, 3])), ("y", ramp(&[1]))], None).unwrap_err();
    assert!(text.contains("no array \"x\"") && text.contains("the file has image, y"), "{text}");
    let text = open(&m, &[("x", ramp(&[1, 3]))], Some("y")).unwrap_err();
    assert!(text.contains("no array \"y\" for the label"), "{text}");
    let text = open(&m, &[("x", ramp(&[1, 3])), ("y", ramp(&[1]))], Some("y")).unwrap_err();
    assert!(text.contains("expected integers"), "{text}");
    let text = open(&m, &[("x", ramp(&[2, 3])), ("y", Tensor::from_u8(&[3], &[1; 3]))], Some("y")).unwrap_err();
    assert!(text.contains("3 numbers for 2 samples"), "{text}");
    let two = model(&[("a", DType::F32, &[0, 3]), ("b", DType::F32, &[0, 3])]);
    let text = open(&two, &[("a", ramp(&[2, 3])), ("b", ramp(&[3, 3]))], None).unwrap_err();
    assert!(text.contains("\"a\" 2, \"b\" 3"), "{text}");
    let state = model(&[("a", DType::F32, &[1, 3]), ("b", DType::F32, &[2, 0, 3])]);
    let text = open(&state, &[("a", ramp(&[2, 3])), ("b", ramp(&[2, 1, 3]))], None).unwrap_err();
    assert!(text.contains("folder of .npz files"), "{text}");
}

#[test]
fn damaged_files_are_errors() {
    let m = model(&[("x", DType::F32, &[0, 3])]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.npz");
    write_npz(&path, &[("x".into(), ramp(&[40, 3]))]).unwrap();
    let whole = fs::read(&path).unwrap();
    let header = whole.windows(6).position(|w| w == b"\x93NUMPY").unwrap();
    let mut flipped = whole.clone();
    flipped[header + 200] ^= 1; // an element: only the checksum can tell
    let mut shape = whole.clone();
    let at = shape.windows(4).position(|w| w == b"(40,").unwrap();
    shape[at..at + 4].copy_from_slice(b"(99,");
    let cases: [&[u8]; 6] = [b"", b"hello", &whole[..whole.len() / 2], &whole[40..], &flipped, &shape];
    for (k, bytes) in cases.iter().enumerate() {
        fs::write(&path, bytes).unwrap();
        let e = Dataset::open(&path, &m.graph, None).unwrap_err().to_string();
        assert!(e.contains("data.npz") && !e.contains('\n'), "case {k}: {e}");
    }
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(&path, bytes).unwrap();
        let _ = Dataset::open(&path, &m.graph, None); // must not panic
    }
    let e = Dataset::open(&folder.path().join("none.npz"), &m.graph, None).unwrap_err().to_string();
    assert!(e.contains("none.npz"), "{e}");
}

#[test]
fn a_folder_of_npz_files_is_one_feed_per_file() {
    let m = model(&[("x", DType::F32, &[0, -1]), ("sr", DType::I64, &[])]);
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, x: Tensor, y: i64| {
        let arrays = [
            ("x".to_string(), x),
            ("sr".into(), Tensor::from_i64(&[], &[y])),
            ("y".into(), Tensor::from_i64(&[], &[y])),
        ];
        write_npz(&folder.path().join(name), &arrays).unwrap();
    };
    write("b.npz", ramp(&[1, 2]), 7);
    write("a.npz", ramp(&[2, 5]), 8);
    fs::write(folder.path().join("README"), "not data").unwrap();
    let mut data = Dataset::open(folder.path(), &m.graph, Some("y")).unwrap();
    assert_eq!((data.len(), data.labels()), (2, Some(&[8, 7][..])));
    assert_eq!(data.batches(32).len(), 2);
    assert_eq!(data.batches(32).feed(0).unwrap()["x"].dims, [2, 5]);
    assert_eq!(data.batches(32).feed(1).unwrap()["sr"].scalar_i64(), Some(7));
    data.limit(1);
    assert_eq!((data.batches(1).len(), data.labels()), (1, Some(&[8][..])));
    write("c.npz", Tensor::from_f32(&[1, 1], &[f32::NAN]), 1);
    let data = Dataset::open(folder.path(), &m.graph, None).unwrap();
    let e = data.batches(1).feed(2).unwrap_err().to_string();
    assert!(e.contains("c.npz") && e.contains("NaN"), "{e}");
    write("d.npz", ramp(&[3]), 1);
    let e = Dataset::open(folder.path(), &m.graph, None).unwrap_err().to_string();
    assert!(e.contains("d.npz") && e.contains("ranks differ"), "{e}");
    let empty = tempfile::tempdir().unwrap();
    assert!(Dataset::open(empty.path(), &m.graph, None).unwrap_err().to_string().contains("neither"));
}

#[test]
fn a_folder_in_the_onnx_test_layout() {
    let m = model(&[("x", DType::F32, &[0, 2]), ("n", DType::I64, &[1])]);
    let folder = tempfile::tempdir().unwrap();
    for k in [10, 2] {
        let set = folder.path().join(format!("test_data_set_{k}"));
        fs::create_dir(&set).unwrap();
        let write = |file: &str, t: &Tensor| {
            fs::write(set.join(file), crate::io::tensor_to_proto(t, None).encode_to_vec()).unwrap();
        };
        write("input_0.pb", &ramp(&[3, 2]));
        write("input_1.pb", &Tensor::from_i64(&[1], &[k]));
        write("output_0.pb", &ramp(&[1]));
    }
    let data = Dataset::open(folder.path(), &m.graph, None).unwrap();
    assert_eq!(data.len(), 2);
    let sets: Vec<_> = (0..2).map(|i| data.batches(9).feed(i).unwrap()["n"].scalar_i64()).collect();
    assert_eq!(sets, [Some(2), Some(10)], "in numeric order");
    fs::remove_file(folder.path().join("test_data_set_2/input_1.pb")).unwrap();
    assert!(Dataset::open(folder.path(), &m.graph, None).unwrap_err().to_string().contains("1 input files"));
}

#[test]
fn random_input_follows_the_graph_and_the_seed() {
    let m = model(&[
        ("x", DType::F32, &[0, 3, -1]),
        ("state", DType::F16, &[2, 0, 4]),
        ("attention_mask", DType::I64, &[0, 5]),
        ("flag", DType::Bool, &[]),
    ]);
    let data = Dataset::random(&m.graph, 5, 1).unwrap();
    assert!(data.is_random());
    let feed = data.batches(2).feed(0).unwrap();
    assert_eq!(feed["x"].dims, [2, 3, 16]);
    assert_eq!(feed["state"].dims, [2, 2, 4]);
    assert!(feed["attention_mask"].to_i64().unwrap().iter().all(|&x| x == 1));
    assert_eq!(data.batches(2).feed(0).unwrap()["x"], feed["x"]);
    assert_ne!(Dataset::random(&m.graph, 4, 2).unwrap().batches(2).feed(0).unwrap()["x"], feed["x"]);

    let free = model(&[("x", DType::F32, &[0, 1000]), ("i", DType::U8, &[0, 1000])]);
    let data = Dataset::random(&free.graph, 3, 1).unwrap();
    let (one, all) = (data.batches(1).feed(2).unwrap(), data.batches(3).feed(0).unwrap());
    let values = all["x"].to_f32().unwrap();
    assert_eq!(one["x"].to_f32().unwrap(), values[2000..], "sample 2 whatever the batch");
    let mean = values.iter().sum::<f32>() / 3000.0;
    let variance = values.iter().map(|x| x * x).sum::<f32>() / 3000.0;
    assert!(mean.abs() < 0.1 && (variance - 1.0).abs() < 0.1, "mean {mean}, variance {variance}");
    let ints = all["i"].to_i64().unwrap();
    let ones = ints.iter().sum::<i64>();
    assert!(ints.iter().all(|x| (0..2).contains(x)) && (1300..1700).contains(&ones), "{ones} ones");

    let fixed = model(&[("x", DType::F32, &[4, 2])]);
    assert_eq!(Dataset::random(&fixed.graph, 5, 1).unwrap().len(), 8);
    let odd = model(&[("x", DType::String, &[4])]);
    assert!(Dataset::random(&odd.graph, 5, 1).unwrap_err().to_string().contains("\"x\" of type string"));
    let huge = model(&[("x", DType::F32, &[1, i64::MAX, i64::MAX])]);
    assert!(Dataset::random(&huge.graph, 1, 1).unwrap().batches(1).feed(0).is_err());
}

#[test]
fn cifar_is_read_quickly() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let path = shared.join("data/cifar10_test_2000.npz");
    if !path.exists() {
        eprintln!("skipped: {} is absent", path.display());
        return;
    }
    let m = model(&[("image", DType::F32, &[0, 3, 32, 32])]);
    let start = Instant::now();
    let data = Dataset::open(&path, &m.graph, Some("label")).unwrap();
    let took = start.elapsed();
    eprintln!("2,000 images in {took:?}");
    assert_eq!((data.len(), data.batches(64).len()), (2000, 32));
    assert!(data.labels().unwrap().iter().all(|l| (0..10).contains(l)));
    assert!(took.as_secs() < 5, "{took:?}");
}
