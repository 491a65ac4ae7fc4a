#!/usr/bin/env python3
"""What gradients recover, measured on ResNet-20 with ONNX Runtime, which shares no code with ours.

usage: recover_table.py BINARY --shared ../shared [--minutes 2.5] [--only importance,sparse,prune,few,sentences] [--macs 0.5,0.7]
                        [--importance l2,fisher,...] [--threads N] [--keep DIR]

Prints tables of top-1 accuracy on 2,000 test images; training goes by 8,192 images without their labels:
  importance  importances at equal MACs (--global), cut, with --repair, and after --minutes of distillation
  sparse      70% and 90% zeros and 2:4, by the Hessian, before and after distillation; zeros must be kept exactly
  prune       --importance group-fisher --repair at each of --macs
  few         the same at 50% of MACs with the 512 calibration images alone, in 1.8 minutes
  sentences   the sentence encoder without 25% of its heads and MLP width: cosine on the test sentences, trained on 256
Exit status: 0 done, 1 a command failed or a zero was lost.
Needs numpy, onnx and onnxruntime.
"""
import argparse, json, os, subprocess, sys, tempfile, time
import numpy as np
import onnx
from onnx import numpy_helper
import onnxruntime as ort


def accuracy(path, data):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    images, labels = data["image"], data["label"]
    hits = sum((session.run(None, {"image": images[i:i + 250]})[0].argmax(1) == labels[i:i + 250]).sum()
               for i in range(0, len(images), 250))
    return 100.0 * hits / len(images)


def zeros(path):
    """By weight of rank 2 and more: where it is zero."""
    graph = onnx.load(path).graph
    dense = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for s in graph.sparse_initializer:
        values, places = numpy_helper.to_array(s.values), numpy_helper.to_array(s.indices)
        full = np.zeros(int(np.prod(s.dims)), values.dtype)
        if places.ndim == 2:
            places = np.ravel_multi_index(places.T, tuple(s.dims))
        full[places] = values
        dense[s.values.name] = full.reshape(s.dims)
    return {name: a == 0 for name, a in dense.items() if a.ndim > 1}


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n")[2][7:])
    parser.add_argument("binary")
    parser.add_argument("--shared", required=True)
    parser.add_argument("--minutes", type=float, default=2.5)
    parser.add_argument("--macs", default="0.5,0.7")
    parser.add_argument("--importance", default="l2,hessian,fisher,weighted-fisher,group-fisher,taylor")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--only", default="importance,sparse,prune,few,sentences")
    parser.add_argument("--keep")
    args = parser.parse_args()
    model = os.path.join(args.shared, "models/resnet20_cifar10_ts.onnx")
    data = {n: os.path.join(args.shared, f"data/cifar10_{n}.npz") for n in ("calib_512", "train_8192", "test_2000")}
    if not os.path.exists(model):
        print(f"skipped: {model} is not there")
        return 0
    test = np.load(data["test_2000"])
    folder = args.keep or tempfile.mkdtemp()
    os.makedirs(folder, exist_ok=True)
    train = ["--recover", "distill", "--minutes", str(args.minutes)]
    recover = [*train, "--recover-data", data["train_8192"], "--flip", "--shift", "2"]

    def run(name, command, *more, of=model):
        out = os.path.join(folder, name + ".onnx")
        start = time.time()
        done = subprocess.run([args.binary, command, of, "-o", out, "--no-validate", "--json", "--threads", args.threads, *more],
                              capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name}: {done.stderr.strip()}")
        report = json.loads(done.stdout)
        return out, report, time.time() - start

    bad = 0
    wanted = args.only.split(",")
    calib = ["--data", data["calib_512"]]
    minutes = f"{args.minutes:g} min"
    cut_of = lambda macs, measure: ["--macs", macs, "--global", "--importance", measure, *calib]
    print(f"original: {accuracy(model, test):.2f}%")
    if "importance" in wanted:
        for macs in args.macs.split(","):
            print(f"\n| importance, {float(macs):.0%} of MACs | MACs | cut | with --repair | after {minutes} |")
            print("|---|---|---|---|---|")
            for measure in args.importance.split(","):
                common = cut_of(macs, measure)
                cut, report, _ = run("cut", "prune", *common)
                left = report["prune"]["macs"][1] / report["prune"]["macs"][0]
                repaired, _, _ = run("repaired", "prune", *common, "--repair")
                trained, _, _ = run("trained", "prune", *common, "--repair", *recover)
                cells = [f"{left:.1%}", *(f"{accuracy(path, test):.2f}" for path in (cut, repaired, trained))]
                print(f"| {measure} | " + " | ".join(cells) + " |", flush=True)
    if "sparse" in wanted:
        print(f"\n| zeros | before | after {minutes} | s |")
        print("|---|---|---|---|")
        for name, options in (("70%", ["--sparsity", "0.7", "--global"]), ("90%", ["--sparsity", "0.9", "--global"]),
                              ("2:4", ["--pattern", "2:4"])):
            options += ["--importance", "hessian", *calib]
            before, _, _ = run("before", "sparsify", *options)
            after, _, seconds = run("after", "sparsify", *options, *recover)
            were, are = zeros(before), zeros(after)
            lost = sum(int((w & ~are[n]).sum()) for n, w in were.items())
            bad += lost
            print(f"| {name} | {accuracy(before, test):.2f} | {accuracy(after, test):.2f} | {seconds:.0f} |"
                  + (f" {lost} ZEROS LOST" if lost else ""), flush=True)
    rows = [(f"{float(m):.0%} of MACs", cut_of(m, "group-fisher"), recover, minutes) for m in args.macs.split(",") if "prune" in wanted]
    few = ["--recover", "distill", "--minutes", "1.8", "--flip", "--shift", "2"]
    rows += [("50% of MACs, 512 images", cut_of("0.5", "group-fisher"), few, "1.8 min")] if "few" in wanted else []
    if rows:
        print("\n| pruned | repaired | trained | for | s |")
        print("|---|---|---|---|---|")
    for name, options, how, time_of in rows:
        before, _, _ = run("before", "prune", *options, "--repair")
        after, _, seconds = run("after", "prune", *options, "--repair", *how)
        print(f"| {name} | {accuracy(before, test):.2f} | {accuracy(after, test):.2f} | {time_of} | {seconds:.0f} |", flush=True)
    if "sentences" in wanted:
        sentences(args, run, train)
    return 1 if bad else 0


def sentences(args, run, train):
    model = os.path.join(args.shared, "models/minilm_ts.onnx")
    data = {n: os.path.join(args.shared, f"data/sentences_{n}.npz") for n in ("calib_256", "test_384")}
    check = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sentence_check.py")
    options = ["--ratio", "0.25", "--importance", "hessian", "--data", data["calib_256"]]
    print("\n| sentence encoder, 25% of heads and MLP width removed | cosine | s |\n|---|---|---|", flush=True)
    ways = [("cut", []), ("repaired", ["--repair"]), (f"repaired, trained for {args.minutes:g} min", ["--repair", *train])]
    for name, more in ways:
        path, _, seconds = run("sentences", "prune", *options, *more, of=model)
        done = subprocess.run([sys.executable, check, model, path, data["test_384"], "--no-time", "--json"],
                              capture_output=True, text=True)
        print(f"| {name} | {json.loads(done.stdout)['cosine']:.4f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
