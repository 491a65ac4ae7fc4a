#!/usr/bin/env python3
"""What gradients recover, measured on ResNet-20 with ONNX Runtime, which shares no code with ours.

usage: recover_table.py BINARY --shared ../shared [--minutes 2.5] [--macs 0.5] [--only importance,sparse,prune] [--keep DIR]

Prints tables of top-1 accuracy on 2,000 test images; training goes by 8,192 images without their labels:
  importance  L2, Fisher and Taylor at equal MACs, without repair, with repair, and after --minutes of distillation
  sparse      70% and 90% zeros, 2:4, before and after distillation; zeros must be kept exactly
  prune       the commands of the README: 50% of MACs and 70% of MACs
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
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--only", default="importance,sparse,prune")
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
    recover = ["--recover", "distill", "--minutes", str(args.minutes), "--recover-data", data["train_8192"],
               "--flip", "--shift", "2"]

    def run(name, command, *more):
        out = os.path.join(folder, name + ".onnx")
        start = time.time()
        done = subprocess.run([args.binary, command, model, "-o", out, "--no-validate", "--json", *more],
                              capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name}: {done.stderr.strip()}")
        report = json.loads(done.stdout)
        return out, report, time.time() - start

    bad = 0
    wanted = args.only.split(",")
    print(f"original: {accuracy(model, test):.2f}%")
    if "importance" in wanted:
        print(f"\n| importance ({args.macs:.0%} of MACs) | MACs | cut | with --repair | after {args.minutes} min |")
        print("|---|---|---|---|---|")
        for measure in ("l2", "fisher", "weighted-fisher", "group-fisher", "taylor"):
            for scope in ([], ["--global"]):
                common = ["--macs", str(args.macs), "--importance", measure, "--data", data["calib_512"], *scope]
                cut, report, _ = run("cut", "prune", *common)
                left = report["prune"]["macs"][1] / report["prune"]["macs"][0]
                repaired, _, _ = run("repaired", "prune", *common, "--repair")
                cells = [f"{left:.1%}", f"{accuracy(cut, test):.2f}", f"{accuracy(repaired, test):.2f}"]
                if args.minutes > 0:
                    trained, _, _ = run("trained", "prune", *common, "--repair", *recover)
                    cells.append(f"{accuracy(trained, test):.2f}")
                print(f"| {measure}{' --global' if scope else ''} | " + " | ".join(cells) + " |", flush=True)
    if "sparse" in wanted:
        print(f"\n| zeros | before | after {args.minutes} min | s |")
        print("|---|---|---|---|")
        for name, options in (("70%", ["--sparsity", "0.7", "--global"]), ("90%", ["--sparsity", "0.9", "--global"]),
                              ("2:4", ["--pattern", "2:4"])):
            before, _, _ = run("before", "sparsify", *options)
            after, _, seconds = run("after", "sparsify", *options, *recover)
            were, are = zeros(before), zeros(after)
            lost = sum(int((w & ~are[n]).sum()) for n, w in were.items())
            bad += lost
            print(f"| {name} | {accuracy(before, test):.2f} | {accuracy(after, test):.2f} | {seconds:.0f} |"
                  + (f" {lost} ZEROS LOST" if lost else ""), flush=True)
    if "prune" in wanted:
        print(f"\n| pruned | before | after {args.minutes} min | s |")
        print("|---|---|---|---|")
        for macs in ("0.5", "0.7"):
            options = ["--macs", macs, "--repair", "--data", data["calib_512"]]
            before, _, _ = run("before", "prune", *options)
            after, _, seconds = run("after", "prune", *options, *recover)
            print(f"| {macs} of MACs | {accuracy(before, test):.2f} | {accuracy(after, test):.2f} | {seconds:.0f} |",
                  flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
