#![allow(clippy::print_stderr)] // a skipped test says why

use super::*;
use crate::io::{model_from_proto, write_npz};
use crate::ir::{DType, Dim, Model, TensorType, Type};
use std::fs;

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

/// A dataset with the folder that it is in.
#[derive(Debug)]
struct Opened {
    data: Dataset,
    _folder: tempfile::TempDir,
}

impl std::ops::Deref for Opened {
    type Target = Dataset;
    fn deref(&self) -> &Dataset {
        &self.data
    }
}

/// Feed `i` of a stream, or the error that comes before it.
fn feed_at(batches: &Batches, i: usize) -> Result<Feed> {
    let stream = batches.stream()?;
    for k in 0..i {
        let (number, feed) = stream.next().unwrap();
        assert_eq!(number, k, "in order");
        feed?;
    }
    stream.next().unwrap().1
}

/// Reads everything.
fn read_all(data: &Dataset, batch: usize) -> Result<usize> {
    let count = |n: &mut usize, _, feed: &Feed| {
        *n += feed.values().next().unwrap().dims[0];
        Ok(())
    };
    Ok(data.batches(batch).fold(|| 0, count)?.iter().sum())
}

/// Opens arrays written to a file; the error as text, from opening or from reading.
fn open(m: &Model, arrays: &[(&str, Tensor)], label: Option<&str>) -> Result<Opened, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.npz");
    let arrays: Vec<_> = arrays.iter().map(|(n, t)| (n.to_string(), t.clone())).collect();
    write_npz(&path, &arrays).unwrap();
    let data = Dataset::open(&path, &m.graph, label);
    data.map(|data| Opened { data, _folder: folder }).map_err(|e| {
        let text = e.to_string();
        assert!(text.contains("data.npz") && !text.contains('\n'), "{text}");
        text
    })
}

#[test]
fn a_free_batch_keeps_the_remainder() {
    let m = model(&[("x", DType::F32, &[0, 3])]);
    let arrays = [("x", ramp(&[5, 3])), ("y", Tensor::from_i32(&[5, 1], &[4, 3, 2, 1, 0]))];
    let mut data = open(&m, &arrays, Some("y")).unwrap();
    assert_eq!((data.len(), data.is_random(), data.labels()), (5, false, Some(&[4, 3, 2, 1, 0][..])));
    let batches = data.batches(2);
    assert_eq!((batches.len(), batches.size(), batches.dropped()), (3, 2, 0));
    let last = feed_at(&batches, 2).unwrap();
    assert_eq!(last["x"], Tensor::from_f32(&[1, 3], &[12.0, 13.0, 14.0]));
    assert_eq!(batches.samples(2), 4..5);
    let stream = batches.stream().unwrap();
    let numbers: Vec<usize> = std::iter::from_fn(|| stream.next()).map(|(i, feed)| feed.map(|_| i).unwrap()).collect();
    assert_eq!(numbers, [0, 1, 2]);
    data.data.limit(3);
    assert_eq!((data.len(), data.labels().unwrap().len(), data.batches(100).len()), (3, 3, 1));
    assert_eq!(feed_at(&data.batches(100), 0).unwrap()["x"].dims, [3, 3]);
}

#[test]
fn a_fixed_batch_drops_the_remainder_and_says_so() {
    let m = model(&[("x", DType::F32, &[2, 3])]);
    let mut data = open(&m, &[("x", ramp(&[5, 3]))], None).unwrap();
    let batches = data.batches(100);
    assert_eq!((batches.len(), batches.size(), batches.dropped()), (2, 2, 1));
    assert_eq!(feed_at(&batches, 1).unwrap()["x"].dims, [2, 3]);
    data.data.limit(1);
    assert_eq!(data.len(), 2, "one complete feed is the least");
    assert!(open(&m, &[("x", ramp(&[1, 3]))], None).unwrap_err().contains("takes 2 samples at once, the file has 1"));
}

#[test]
fn an_input_without_a_batch_axis_takes_one_sample_at_a_time() {
    let m = model(&[("x", DType::F32, &[3]), ("s", DType::F32, &[])]);
    let data = open(&m, &[("x", ramp(&[4, 3])), ("s", ramp(&[4]))], None).unwrap();
    let feed = feed_at(&data.batches(8), 2).unwrap();
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
fn the_first_bad_sample_is_named_whatever_the_threads() {
    let m = model(&[("x", DType::F32, &[0, 3]), ("z", DType::F32, &[0])]);
    let mut x = vec![0f32; 300];
    (x[3 * 41 + 2], x[3 * 87]) = (f32::NAN, f32::INFINITY);
    let data = open(&m, &[("x", Tensor::from_f32(&[100, 3], &x)), ("z", ramp(&[100]))], None).unwrap();
    for (threads, batch) in [(1, 1), (3, 1), (3, 7), (3, 100)] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let e = pool.install(|| read_all(&data, batch)).unwrap_err().to_string();
        assert!(e.ends_with("array \"x\" holds NaN or infinity in sample 41") && e.contains("data.npz"), "{e}");
        let fail = |_: &mut (), i: usize, _: &Feed| match i {
            13.. => Err(Error::data(format!("feed {i}"))),
            _ => Ok(()),
        };
        let e = pool.install(|| data.batches(1).fold(|| (), fail)).unwrap_err().to_string();
        assert!(e.ends_with("feed 13"), "{e}");
    }
}

#[test]
fn every_sample_is_read_once_whatever_the_threads() {
    let m = model(&[("x", DType::F32, &[0, 3]), ("z", DType::F32, &[0])]);
    let data = open(&m, &[("x", ramp(&[100, 3])), ("z", ramp(&[100]))], None).unwrap();
    for (threads, batch) in [(1, 1), (4, 1), (4, 7), (4, 1000)] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let note = |seen: &mut Vec<f32>, i: usize, feed: &Feed| {
            let z = feed["z"].to_f32()?;
            assert_eq!(z[0] as usize, i * batch);
            let x: Vec<f32> = feed["x"].to_f32()?.iter().step_by(3).map(|x| x / 3.0).collect();
            assert_eq!(x, z, "the arrays stay together");
            seen.extend(z);
            Ok(())
        };
        let mut seen: Vec<f32> = pool.install(|| data.batches(batch).fold(Vec::new, note)).unwrap().concat();
        seen.sort_by(f32::total_cmp);
        assert_eq!(seen, ramp(&[100]).to_f32().unwrap());
    }
}

#[test]
fn compressed_and_column_major_arrays_stream_too() {
    use npyz::WriterBuilder;
    let m = model(&[("x", DType::F32, &[0, 3]), ("z", DType::F32, &[0])]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.npz");
    let mut npz = npyz::npz::NpzWriter::create(&path).unwrap();
    let deflated = npyz::zip::write::FileOptions::default();
    let mut write = |name: &str, order, shape: &[u64], data: Vec<f32>| {
        let array = npz.array(name, deflated).unwrap().default_dtype().order(order).shape(shape);
        let mut array = array.begin_nd().unwrap();
        array.extend(data).unwrap();
        array.finish().unwrap();
    };
    let transposed = (0..150).map(|i| ((i % 50) * 3 + i / 50) as f32);
    write("x", npyz::Order::Fortran, &[50, 3], transposed.collect());
    write("z", npyz::Order::C, &[50], (0..50).map(|i| i as f32).collect());
    drop(npz);
    let data = Dataset::open(&path, &m.graph, None).unwrap();
    let last = feed_at(&data.batches(8), 6).unwrap();
    assert_eq!(last["x"], Tensor::from_f32(&[2, 3], &[144.0, 145.0, 146.0, 147.0, 148.0, 149.0]));
    assert_eq!(last["z"], Tensor::from_f32(&[2], &[48.0, 49.0]));
    // Damage anywhere in the compressed elements is found, at the latest by the checksum.
    let whole = fs::read(&path).unwrap();
    let z = whole.windows(5).position(|w| w == b"z.npy").unwrap();
    let directory = whole.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    let values = |data: Dataset| -> Result<Vec<f32>> {
        let note = |all: &mut Vec<f32>, _, feed: &Feed| {
            all.extend(feed["z"].to_f32()?);
            Ok(())
        };
        let mut all = data.batches(7).fold(Vec::new, note)?.concat();
        all.sort_by(f32::total_cmp);
        Ok(all)
    };
    let mut same = 0;
    for at in z + 5..directory {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, bytes).unwrap();
        match Dataset::open(&path, &m.graph, None).and_then(values).map_err(|e| e.to_string()) {
            // Some bits mean nothing, and what repeats can be copied from several places.
            Ok(all) => {
                assert_eq!(all, ramp(&[50]).to_f32().unwrap(), "{at}");
                same += 1;
            }
            Err(e) => assert!(e.contains("data.npz") && !e.contains('\n'), "{at}: {e}"),
        }
    }
    assert!(same < 10, "{same} of {} bytes", directory - z);
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
    let read = || Dataset::open(&path, &m.graph, None).and_then(|data| read_all(&data, 7));
    assert_eq!(read().unwrap(), 40);
    let cases: [&[u8]; 6] = [b"", b"hello", &whole[..whole.len() / 2], &whole[40..], &flipped, &shape];
    for (k, bytes) in cases.iter().enumerate() {
        fs::write(&path, bytes).unwrap();
        let e = read().unwrap_err().to_string();
        assert!(e.contains("data.npz") && !e.contains('\n'), "case {k}: {e}");
    }
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(&path, bytes).unwrap();
        let _ = read(); // must not panic
    }
    fs::write(&path, &flipped).unwrap();
    let mut part = Dataset::open(&path, &m.graph, None).unwrap();
    let e = read_all(&part, 7).unwrap_err().to_string();
    assert!(e.contains("array \"x\"") && e.contains("checksum"), "{e}");
    part.limit(30);
    assert_eq!(read_all(&part, 7).unwrap(), 30, "as documented: the end was not reached");
    let fixed = model(&[("x", DType::F32, &[39, 3])]);
    let e = read_all(&Dataset::open(&path, &fixed.graph, None).unwrap(), 1).unwrap_err().to_string();
    assert!(e.contains("checksum"), "the dropped sample is read too: {e}");
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
    assert_eq!(feed_at(&data.batches(32), 0).unwrap()["x"].dims, [2, 5]);
    assert_eq!(feed_at(&data.batches(32), 1).unwrap()["sr"].scalar_i64(), Some(7));
    data.limit(1);
    assert_eq!((data.batches(1).len(), data.labels()), (1, Some(&[8][..])));
    write("c.npz", Tensor::from_f32(&[1, 1], &[f32::NAN]), 1);
    let data = Dataset::open(folder.path(), &m.graph, None).unwrap();
    let e = feed_at(&data.batches(1), 2).unwrap_err().to_string();
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
    let sets: Vec<_> = (0..2).map(|i| feed_at(&data.batches(9), i).unwrap()["n"].scalar_i64()).collect();
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
    let feed = feed_at(&data.batches(2), 0).unwrap();
    assert_eq!(feed["x"].dims, [2, 3, 16]);
    assert_eq!(feed["state"].dims, [2, 2, 4]);
    assert!(feed["attention_mask"].to_i64().unwrap().iter().all(|&x| x == 1));
    assert_eq!(feed_at(&data.batches(2), 0).unwrap()["x"], feed["x"]);
    assert_ne!(feed_at(&Dataset::random(&m.graph, 4, 2).unwrap().batches(2), 0).unwrap()["x"], feed["x"]);

    let free = model(&[("x", DType::F32, &[0, 1000]), ("i", DType::U8, &[0, 1000])]);
    let data = Dataset::random(&free.graph, 3, 1).unwrap();
    let (one, all) = (feed_at(&data.batches(1), 2).unwrap(), feed_at(&data.batches(3), 0).unwrap());
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
    assert!(feed_at(&Dataset::random(&huge.graph, 1, 1).unwrap().batches(1), 0).is_err());
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
    let data = Dataset::open(&path, &m.graph, Some("label")).unwrap();
    assert_eq!(read_all(&data, 1).unwrap(), 2000);
    assert_eq!((data.len(), data.batches(64).len()), (2000, 32));
    assert!(data.labels().unwrap().iter().all(|l| (0..10).contains(l)));
}
