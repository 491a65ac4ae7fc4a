#!/usr/bin/env python3
"""Judges what `sardonyx simplify` writes: valid, the same outputs in ONNX Runtime, and no more nodes than promised.

usage: simplify_check.py SARDONYX [--shared FOLDER]

The bounds are the best valid peer's (onnxsim, OnnxSlim, onnxoptimizer, ONNX Runtime's basic level). One line per check; exit
status 1 if one fails. Models that are absent are skipped by name.
"""
import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

ROOT = Path(__file__).resolve().parent.parent
# Model, data for the comparison (absent: random input), most nodes.
MODELS = [
    ("models/resnet20_cifar10_ts", "data/cifar10_calib_512.npz", 52),
    ("models/resnet20_cifar10_dynamo", "data/cifar10_calib_512.npz", None),
    ("models/ultraface-rfb-320", None, 124),
    ("models/silero_vad_16k_op15", "data/silero_feeds", 75),
    ("models/silero_vad", "data/silero_feeds", 150),
    ("models/minilm_ts", "data/sentences_test_384.npz", 350),
    ("models/mnist", None, None),
    ("models/light_shufflenet", None, 154),
    ("models/light_squeezenet", None, None),
    ("digits/digits_vit", "digits/digits_test.npz", 66),
    ("digits/digits_gru", "digits/digits_test.npz", None),
    ("digits/digits_mobile", "digits/digits_test.npz", None),
    ("digits/digits_resnet_dynamo", "digits/digits_test.npz", None),
]


def count(graph):
    bodies = (a.g for n in graph.node for a in n.attribute if a.type == onnx.AttributeProto.GRAPH)
    return len(graph.node) + sum(count(b) for b in bodies)


def listed(model):
    """Up to IR version 3 every initializer is a graph input."""
    inputs = {i.name for i in model.graph.input}
    return model.ir_version > 3 or all(i.name in inputs for i in model.graph.initializer)


def run(command):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, stdin=subprocess.DEVNULL)


def judge(binary, shared, name, data, most, folder):
    """What is wrong, or None; and the figures."""
    source, target = shared / f"{name}.onnx", folder / "out.onnx"
    done = run([binary, "simplify", source, "-o", target])
    if done.returncode != 0:
        return done.stderr.strip(), ""
    before, after = (count(onnx.load(str(p), load_external_data=False).graph) for p in (source, target))
    figures = f"{before} -> {after} nodes"
    if most is not None and after > most:
        return f"more than {most} nodes", figures
    if not listed(onnx.load(str(target))):
        return "an initializer is no graph input, which IR version 3 forbids", figures
    check = [sys.executable, shared / "tools" / "ort_check.py", source, target, "--max-rel", "1e-4"]
    check += ["--data", shared / data, "--samples", "64"] if data else ["--batch", "2"]
    judged = run(check)
    if judged.returncode != 0:
        return (judged.stdout + judged.stderr).strip().splitlines()[-1][:200], figures
    run([binary, "simplify", target, "-o", folder / "again.onnx"])
    if target.read_bytes() != (folder / "again.onnx").read_bytes():
        return "simplifying the result changes it again", figures
    return None, figures


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("sardonyx", type=Path)
    p.add_argument("--shared", type=Path, default=ROOT / ".." / "shared")
    args = p.parse_args()
    failed = 0
    for name, data, most in MODELS:
        if not (args.shared / f"{name}.onnx").exists():
            print(f"skip  {name}: absent")
            continue
        with tempfile.TemporaryDirectory() as folder:
            wrong, figures = judge(args.sardonyx.resolve(), args.shared, name, data, most, Path(folder))
        print(f"{'FAIL' if wrong else 'ok  '}  {name:<34} {figures} {wrong or ''}", flush=True)
        failed += wrong is not None
    print("all hold" if failed == 0 else f"{failed} fall short")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
