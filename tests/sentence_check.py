#!/usr/bin/env python3
"""Judges a quantized sentence encoder with ONNX Runtime, which shares no code with ours.

usage: sentence_check.py ORIGINAL QUANTIZED DATA.npz [--output embedding] [--batch 32] [--threads 1]
                         [--min-cosine X] [--min-neighbours SHARE] [--max-bytes N] [--no-time] [--json]

DATA.npz holds arrays keyed by graph input name, axis 0 = sentence. Prints
  bytes       size of both files (external data included)
  cosine      mean cosine between the two models' outputs, and the smallest
  neighbours  share of sentences whose nearest neighbour (largest cosine, the sentence itself excluded) stays
  seconds     whole data set, best of three, of both models
Exit status: 0 all asked-for bounds hold, 1 one does not, 2 the quantized model is invalid or does not run.
Needs numpy, onnx and onnxruntime.
"""
import argparse, json, os, sys, time
import numpy as np
import onnx
import onnxruntime as ort


def session(path, threads):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def embed(sess, data, output, batch):
    names = [i.name for i in sess.get_inputs()]
    total = len(data[names[0]])
    return np.concatenate([sess.run([output], {k: data[k][i:i + batch] for k in names})[0] for i in range(0, total, batch)])


def seconds(runs, repeats=3):
    """Least time of each, taken in turns so that a busy machine slows down all alike."""
    times = [[] for _ in runs]
    for _ in range(repeats):
        for run, taken in zip(runs, times):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    return [round(min(taken), 3) for taken in times]


def stored(path):
    total, folder = os.path.getsize(path), os.path.dirname(os.path.abspath(path))
    model = onnx.load(path, load_external_data=False)
    external = {e.value for t in model.graph.initializer for e in t.external_data if e.key == "location"}
    return total + sum(os.path.getsize(os.path.join(folder, f)) for f in external)


def unit(x):
    x = x.astype(np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30)


def nearest(x):
    similarity = x @ x.T
    np.fill_diagonal(similarity, -2)
    return similarity.argmax(1)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("original"); p.add_argument("quantized"); p.add_argument("data")
    p.add_argument("--output", default="embedding"); p.add_argument("--batch", type=int, default=32)
    p.add_argument("--threads", type=int, default=1); p.add_argument("--no-time", action="store_true")
    p.add_argument("--min-cosine", type=float); p.add_argument("--min-neighbours", type=float)
    p.add_argument("--max-bytes", type=int); p.add_argument("--json", action="store_true")
    args = p.parse_args()
    ort.set_default_logger_severity(4)
    data = dict(np.load(args.data))
    original = session(args.original, args.threads)
    reference = embed(original, data, args.output, args.batch)
    try:
        onnx.checker.check_model(args.quantized, full_check=True)
        quantized = session(args.quantized, args.threads)
        found = embed(quantized, data, args.output, args.batch)
    except Exception as e:
        print(f"invalid: {str(e)[:600]}")
        sys.exit(2)
    if found.shape != reference.shape or not np.isfinite(found).all():
        print("invalid: the output changed its shape or is not finite")
        sys.exit(2)
    a, b = unit(reference), unit(found)
    cosine = (a * b).sum(1)
    report = {"bytes": [stored(args.original), stored(args.quantized)], "cosine": float(cosine.mean()),
              "min_cosine": float(cosine.min()), "neighbours": float((nearest(a) == nearest(b)).mean())}
    if not args.no_time:
        run = lambda sess: lambda: embed(sess, data, args.output, args.batch)
        report["seconds"] = seconds([run(original), run(quantized)])
        report["speedup"] = round(report["seconds"][0] / report["seconds"][1], 2)
    failed = []
    if args.min_cosine is not None and report["cosine"] < args.min_cosine:
        failed.append(f"cosine {report['cosine']:.5f} < {args.min_cosine}")
    if args.min_neighbours is not None and report["neighbours"] < args.min_neighbours:
        failed.append(f"neighbours {report['neighbours']:.4f} < {args.min_neighbours}")
    if args.max_bytes is not None and report["bytes"][1] > args.max_bytes:
        failed.append(f"{report['bytes'][1]} bytes > {args.max_bytes}")
    report["failed"] = failed
    print(json.dumps(report, indent=None if args.json else 1))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
