"""Sparsity of ResNet-20 from 0 to 99%: sizes, bits, readers.

    python tests/sparse_check.py target/debug/sardonyx --shared ../shared

The file is never larger than the dense one, comes back bit for bit with --densify, and onnx.checker, ONNX Runtime,
`simplify`, `quantize`, `prune`, `validate` and `inspect` take it. Exit status 1 where one of these does not hold.
"""

import argparse
import pathlib
import subprocess
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper


def weights(path):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--shared", type=pathlib.Path, default=pathlib.Path("../shared"))
    args = parser.parse_args()
    model = args.shared / "models/resnet20_cifar10_ts.onnx"
    if not model.exists():
        print(f"SKIPPED: {model} is absent")
        return
    failed = []

    def sardonyx(*words):
        done = subprocess.run([args.binary, *map(str, words)], capture_output=True, text=True)
        if done.returncode:
            failed.append(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
        return not done.returncode

    def expect(holds, what):
        if not holds:
            failed.append(what)

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        sparse, dense, back, out = (folder / f"{n}.onnx" for n in ("sparse", "dense", "back", "out"))
        x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
        for percent in [0, 10, 30, 50, 60, 65, 67, 70, 75, 80, 90, 95, 99]:
            goal = ["--sparsity", percent / 100, "--global", "--no-validate"]
            sardonyx("sparsify", model, "-o", sparse, *goal)
            sardonyx("sparsify", model, "-o", dense, *goal, "--dense")
            sardonyx("sparsify", sparse, "-o", back, "--densify", "--no-validate")
            small, large = sparse.stat().st_size, dense.stat().st_size
            expect(small <= large, f"{percent}%: {small} bytes sparse, {large} dense")
            a, b = weights(dense), weights(back)
            same = a.keys() == b.keys() and all(a[n].tobytes() == b[n].tobytes() for n in a)
            expect(same, f"{percent}%: other bits after --densify")
            # Not with full_check: its shape inference has no operator that takes a sparse initializer.
            onnx.checker.check_model(str(sparse))
            run = lambda path: onnxruntime.InferenceSession(str(path)).run(None, {"image": x})[0]
            expect(np.array_equal(run(sparse), run(dense)), f"{percent}%: ONNX Runtime computes something else")
            stored = len(onnx.load(sparse).graph.sparse_initializer)
            print(f"{percent:3d}% zeros: {large} -> {small} bytes, {stored} sparse initializers")
            if percent in (70, 90):
                sardonyx("inspect", sparse)
                sardonyx("simplify", sparse, "-o", out)
                sardonyx("quantize", sparse, "-o", out, "--samples", 4)
                sardonyx("prune", sparse, "-o", out, "--ratio", 0.3)
                sardonyx("validate", dense, sparse, "--min-sqnr", 200)
    for line in failed:
        print("FAILED:", line)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
