#!/usr/bin/env python3
"""What pruning and zeros cost, with and without repair, measured with ONNX Runtime, which shares no code with ours.

usage: prune_table.py BINARY [--shared ../shared] [--only importance,rounding,sparsity,pipeline,sentences]
                      [--importance l1,l2,...] [--macs 0.7,0.5]

Prints tables:
  importance  ResNet-20 at 70% and 50% of its MACs (--global), by every importance, without and with --repair: top-1 accuracy
              on 2,000 test images and the share of them that keep the original's class, and the least time of one image in
              ONNX Runtime on one thread against the original's
  rounding    the same model at 50% of its MACs with --round-to 1, 4, 8 and 16: times in ONNX Runtime
  sparsity    zeros by magnitude and by the Hessian at 50, 70, 90% and 2:4
  pipeline    prune, then sparsify, then quantize: bytes, zeros and accuracy at each stage
  sentences   the sentence encoder without 25% of its heads and of its MLP width, and with 50% zeros: cosine, bytes, seconds and
              memory of the command
Repair goes by 512 images, or 256 sentences, without labels. Exit status: 0 done, 1 a command failed, a zero was lost, or a
bound of time or memory does not hold. Needs numpy, onnx and onnxruntime.
"""
import argparse, os, subprocess, sys, tempfile, time
import numpy as np
import onnx
from onnx import numpy_helper
import onnxruntime as ort

IMPORTANCES = "random,l1,l2,bn-scale,fpgm,activation,hessian,fisher,weighted-fisher,group-fisher,taylor"
NEED_DATA = {"activation", "hessian", "fisher", "weighted-fisher", "group-fisher", "taylor"}
failed = []


def session(path):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def classes(path, data):
    images, run = data["image"], session(path)
    return np.concatenate([run.run(None, {"image": images[i:i + 250]})[0].argmax(1) for i in range(0, len(images), 250)])


def accuracy(path, data):
    return 100.0 * (classes(path, data) == data["label"]).mean()


def judged(path, data):
    """Accuracy, and the share of images that keep the original's class."""
    found = classes(path, data)
    return f"{100.0 * (found == data['label']).mean():.2f} ({100.0 * (found == data['kept']).mean():.1f})"


def milliseconds(paths, image, runs=60):
    """Least time of each on one image, taken in turns."""
    sessions, best = [session(p) for p in paths], [1e9] * len(paths)
    for _ in range(runs):
        for k, s in enumerate(sessions):
            start = time.perf_counter()
            s.run(None, {"image": image})
            best[k] = min(best[k], time.perf_counter() - start)
    return [1000 * b for b in best]


def weights(path):
    graph = onnx.load(str(path)).graph
    dense = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for s in graph.sparse_initializer:
        full = np.zeros(int(np.prod(s.dims)), numpy_helper.to_array(s.values).dtype)
        places = numpy_helper.to_array(s.indices)
        full[np.ravel_multi_index(places.T, tuple(s.dims)) if places.ndim == 2 else places] = numpy_helper.to_array(s.values)
        dense[s.values.name] = full.reshape(s.dims)
    return dense


def zeros(path):
    """Share of zeros in weights of rank 2 and more, and their number. Of an integer weight the zero point counts."""
    graph, all_weights = onnx.load(str(path)).graph, weights(path)
    points = {}
    for n in graph.node:
        if n.op_type == "QLinearConv":
            points[n.input[3]] = n.input[5]
        elif n.op_type == "QLinearMatMul":
            points[n.input[3]] = n.input[5]
        elif n.op_type == "DequantizeLinear" and len(n.input) > 2:
            points[n.input[0]] = n.input[2]
    total = none = 0
    for name, a in all_weights.items():
        if a.ndim > 1:
            point = all_weights[points[name]].reshape(-1)[0] if name in points else 0
            total, none = total + a.size, none + int((a == point).sum())
    return none, 100.0 * none / total


class Command:
    """Runs the program; keeps the seconds and the peak of its memory in MB."""

    def __init__(self, binary, *words):
        start = time.perf_counter()
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen([binary, *map(str, words), "--quiet"], stdout=subprocess.DEVNULL, stderr=errors)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = status
            errors.seek(0)
            self.ok = status == 0
            if not self.ok:
                failed.append(f"{' '.join(map(str, words))}: {errors.read().decode().strip()}")
        self.seconds, self.megabytes = time.perf_counter() - start, usage.ru_maxrss / 1024


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("binary"); p.add_argument("--shared", default="../shared")
    p.add_argument("--only", default="importance,rounding,sparsity,pipeline,sentences")
    p.add_argument("--importance", default=IMPORTANCES); p.add_argument("--macs", default="0.7,0.5")
    args = p.parse_args()
    only, shared = args.only.split(","), os.path.abspath(args.shared)
    model = f"{shared}/models/resnet20_cifar10_ts.onnx"
    if not os.path.exists(model):
        print(f"SKIPPED: {model} is absent")
        return
    calib, test = f"{shared}/data/cifar10_calib_512.npz", dict(np.load(f"{shared}/data/cifar10_test_2000.npz"))
    image = test["image"][:1]
    with tempfile.TemporaryDirectory() as tmp:
        run = lambda *words: Command(args.binary, *words, "--no-validate")
        out = lambda name: f"{tmp}/{name}.onnx"
        test["kept"] = classes(model, test)
        print(f"original: {accuracy(model, test):.2f}%, {os.path.getsize(model)} bytes", flush=True)
        if "importance" in only:
            importance(args, run, out, model, calib, test, image)
        if "rounding" in only:
            rounding(run, out, model, test, image)
        if "sparsity" in only:
            sparsity(run, out, model, calib, test)
        if "pipeline" in only:
            pipeline(run, out, model, calib, test, image)
        if "sentences" in only:
            sentences(args, run, out, shared)
    for line in failed:
        print("FAILED:", line)
    sys.exit(1 if failed else 0)


def importance(args, run, out, model, calib, test, image):
    targets = args.macs.split(",")
    print("\n| importance | " + " | ".join(f"{100 * float(t):.0f}% of MACs | repaired | time" for t in targets) + " |")
    print("|---" * (1 + 3 * len(targets)) + "|", flush=True)
    for name in args.importance.split(","):
        cells = []
        for target in targets:
            words = ["prune", model, "--global", "--macs", target, "--importance", name, "-o"]
            data = ["--data", calib]
            plain = run(*words, out("plain"), *(data if name in NEED_DATA else []))
            repaired = run(*words, out("repaired"), *data, "--repair")
            cells.append(judged(out("plain"), test) if plain.ok else "-")
            if not repaired.ok:
                cells += ["-", "-"]
                continue
            before, after = milliseconds([model, out("repaired")], image)
            cells += [judged(out("repaired"), test), f"{after / before:.2f}"]
        print(f"| `{name}` | " + " | ".join(cells) + " |", flush=True)


def rounding(run, out, model, test, image):
    print("\n| 50% of MACs | MACs | ms | against the original |\n|---|---|---|---|")
    steps = [1, 4, 8, 16]
    for step in steps:
        run("prune", model, "--macs", 0.5, "--round-to", step, "-o", out(f"r{step}"))
        run("prune", model, "--macs", 0.5, "--global", "--round-to", step, "-o", out(f"g{step}"))
    names = [f"{k}{step}" for step in steps for k in "rg"]
    times = milliseconds([model, *map(out, names)], image)
    for name, ms in zip(["original", *names], times):
        macs = run_macs(model if name == "original" else out(name))
        label = name if name == "original" else f"{'per layer' if name[0] == 'r' else '--global'}, --round-to {name[1:]}"
        print(f"| {label} | {macs / 1e6:.1f} M | {ms:.3f} | {ms / times[0]:.2f} |", flush=True)


def run_macs(path):
    """Multiply-accumulates of the convolutions on one image of 32 x 32, from shapes that ONNX infers."""
    m = onnx.shape_inference.infer_shapes(onnx.load(path))
    shape = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in [*m.graph.value_info, *m.graph.output]}
    dims = {t.name: list(t.dims) for t in m.graph.initializer}
    conv = lambda n: int(np.prod(dims[n.input[1]]) * np.prod(shape[n.output[0]][2:]))
    return sum(conv(n) for n in m.graph.node if n.op_type == "Conv")


def sparsity(run, out, model, calib, test):
    print("\n| zeros | magnitude | Hessian | seconds | bytes |\n|---|---|---|---|---|", flush=True)
    for label, goal in [("50%", ["--sparsity", 0.5, "--global"]), ("70%", ["--sparsity", 0.7, "--global"]),
                        ("90%", ["--sparsity", 0.9, "--global"]), ("2:4", ["--pattern", "2:4"])]:
        run("sparsify", model, "-o", out("m"), *goal)
        done = run("sparsify", model, "-o", out("h"), *goal, "--importance", "hessian", "--data", calib)
        a, b = accuracy(out("m"), test), accuracy(out("h"), test) if done.ok else float("nan")
        print(f"| {label} | {a:.2f}% | {b:.2f}% | {done.seconds:.0f} | {os.path.getsize(out('h'))} |", flush=True)


def pipeline(run, out, model, calib, test, image):
    stages = [("original", None),
              ("pruned to 70% of MACs, repaired", ["prune", "--macs", 0.7, "--global", "--repair", "--data", calib]),
              ("50% zeros by the Hessian", ["sparsify", "--sparsity", 0.5, "--global", "--importance", "hessian", "--data", calib]),
              ("8 bits", ["quantize", "--data", calib])]
    print("\n| stage | bytes | zeros | accuracy |\n|---|---|---|---|", flush=True)
    path, none = model, None
    for k, (label, words) in enumerate(stages):
        if words:
            done = run(words[0], path, "-o", out(f"s{k}"), *words[1:])
            if not done.ok:
                return
            path = out(f"s{k}")
        count, share = zeros(path)
        print(f"| {label} | {os.path.getsize(path)} | {count} ({share:.1f}%) | {accuracy(path, test):.2f}% |", flush=True)
        if label == "8 bits" and count < none:
            failed.append(f"{none - count} zeros were lost by quantization")
        none = count


def sentences(args, run, out, shared):
    model = f"{shared}/models/minilm_ts.onnx"
    calib, test = f"{shared}/data/sentences_calib_256.npz", f"{shared}/data/sentences_test_384.npz"
    check = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sentence_check.py")
    print("\n| sentence encoder | cosine | neighbour kept | bytes | seconds | MB |\n|---|---|---|---|---|---|", flush=True)
    hessian = ["--importance", "hessian", "--data", calib]
    cut, zeros_in = ["prune", "--ratio", 0.25, *hessian], ["sparsify", "--sparsity", 0.5]
    rows = [("25% of heads and MLP width", cut), ("the same, repaired", [*cut, "--repair"]),
            ("50% zeros by magnitude", zeros_in), ("50% zeros by the Hessian", [*zeros_in, *hessian])]
    for label, words in rows:
        done = run(words[0], model, "-o", out("sentence"), *words[1:])
        if not done.ok:
            continue
        done_check = subprocess.run([sys.executable, check, model, out("sentence"), test, "--no-time", "--json"],
                                capture_output=True, text=True)
        import json
        found = json.loads(done_check.stdout)
        cells = [f"{found['cosine']:.4f}", f"{100 * found['neighbours']:.1f}%", str(found["bytes"][1])]
        print(f"| {label} | " + " | ".join(cells) + f" | {done.seconds:.0f} | {done.megabytes:.0f} |", flush=True)
        if done.seconds > 300 or done.megabytes > 2048:
            failed.append(f"{label}: {done.seconds:.0f} s, {done.megabytes:.0f} MB: more than 300 s or 2,048 MB")


if __name__ == "__main__":
    main()
