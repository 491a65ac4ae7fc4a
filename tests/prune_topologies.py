"""Prunes eleven topologies to half of their channels, as exporters write them and simplified, and judges by ONNX Runtime.

    python tests/prune_topologies.py target/debug/sardonyx

Each pruned model must be smaller, pass onnx.checker, run in ONNX Runtime and in tract, and equal the original whose
weights are zero wherever --map says that a channel went. Exit status 1 if one does not.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

ROUNDING = 2e-5


class Net:
    """A graph under construction, with made-up weights."""

    def __init__(self, shape):
        self.nodes, self.weights, self.rng = [], [], np.random.default_rng(len(shape))
        self.input = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        self.count = 0

    def weight(self, *dims, positive=False):
        data = self.rng.standard_normal(dims).astype(np.float32) * 0.4
        return self.constant(np.abs(data) + 0.5 if positive else data)

    def constant(self, array):
        self.count += 1
        self.weights.append(numpy_helper.from_array(np.asarray(array), f"w{self.count}"))
        return f"w{self.count}"

    def ints(self, *values):
        return self.node("Constant", value=numpy_helper.from_array(np.array(values, np.int64)))

    def node(self, op, *inputs, outputs=1, **attributes):
        self.count += 1
        names = [f"v{self.count}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=f"n{self.count}", **attributes))
        return names[0] if outputs == 1 else names

    def conv(self, x, out, inp, k=3, bias=False, **attributes):
        pads = [k // 2] * 4
        inputs = [x, self.weight(out, inp, k, k)] + ([self.weight(out)] if bias else [])
        return self.node("Conv", *inputs, pads=pads, **attributes)

    def norm(self, x, n):
        parts = [self.weight(n), self.weight(n), self.weight(n), self.weight(n, positive=True)]
        return self.node("BatchNormalization", x, *parts)

    def block(self, x, out, inp, k=3, **attributes):
        return self.node("Relu", self.norm(self.conv(x, out, inp, k, **attributes), out))

    def batch_size(self, x):
        """As exporters read it."""
        gathered = self.node("Gather", self.node("Shape", x), self.node("Constant", value_int=0), axis=0)
        return self.node("Unsqueeze", gathered, self.ints(0))

    def head(self, x, channels, spatial=True):
        if spatial:
            x = self.node("Flatten", self.node("GlobalAveragePool", x))
        return self.node("Gemm", x, self.weight(5, channels), self.weight(5), transB=1)

    def model(self, y, rank=2):
        info = helper.make_tensor_value_info(y, TensorProto.FLOAT, [None] * rank)
        graph = helper.make_graph(self.nodes, "g", [self.input], [info], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def image():
    return Net(["N", 3, 8, 8])


def unfused_bn():
    n = image()
    return n.model(n.head(n.block(n.block("x", 16, 3), 16, 16), 16))


def vgg_flatten():
    n = image()
    x = n.node("MaxPool", n.block("x", 16, 3), kernel_shape=[2, 2], strides=[2, 2])
    shape = n.node("Concat", n.batch_size(x), n.ints(256), axis=0)
    x = n.node("Reshape", x, shape)
    x = n.node("Relu", n.node("Gemm", x, n.weight(32, 256), n.weight(32), transB=1))
    return n.model(n.head(x, 32, False))


def dense_concat():
    n = image()
    x, width = n.block("x", 8, 3), 8
    for _ in range(3):
        x = n.node("Concat", x, n.conv(n.node("Relu", n.norm(x, width)), 8, width), axis=1)
        width += 8
    return n.model(n.head(n.node("Relu", n.norm(x, width)), width))


def c2f_split():
    n = image()
    a, b = n.node("Split", n.block("x", 16, 3, 1), n.ints(8, 8), outputs=2, axis=1)
    c = n.node("Add", b, n.block(n.block(b, 8, 8), 8, 8))
    return n.model(n.head(n.block(n.node("Concat", a, b, c, axis=1), 16, 24, 1), 16))


def channel_shuffle():
    n = image()
    x = n.block("x", 16, 3)
    for _ in range(2):
        a, b = n.node("Split", x, n.ints(8, 8), outputs=2, axis=1)
        b = n.block(b, 8, 8, 1)
        b = n.norm(n.conv(b, 8, 1, group=8), 8)
        b = n.block(b, 8, 8, 1)
        x = n.node("Concat", a, b, axis=1)
        batch = n.batch_size(x)
        split = n.node("Concat", batch, n.ints(2, 8, 8, 8), axis=0)
        x = n.node("Transpose", n.node("Reshape", x, split), perm=[0, 2, 1, 3, 4])
        x = n.node("Reshape", x, n.node("Concat", batch, n.ints(-1, 8, 8), axis=0))
    return n.model(n.head(n.block(x, 16, 16, 1), 16))


def lstm():
    n = Net(["N", 6, 8])
    x = n.node("Transpose", "x", perm=[1, 0, 2])
    shape = n.node("Concat", n.ints(1), n.batch_size("x"), n.ints(16), axis=0)
    zero = n.node("Expand", n.node("Constant", value=numpy_helper.from_array(np.zeros((1, 1, 1), np.float32))), shape)
    y, _, _ = n.node("LSTM", x, n.weight(1, 64, 8), n.weight(1, 64, 16), n.weight(1, 128), "", zero, zero,
                     outputs=3, hidden_size=16)
    y = n.node("Transpose", n.node("Squeeze", y, n.ints(1)), perm=[1, 0, 2])
    last = n.node("Gather", y, n.node("Constant", value_int=-1), axis=1)
    return n.model(n.head(last, 16, False))


def gelu_mlp():
    n = Net(["N", 4, 8])
    h = n.node("Add", n.node("MatMul", "x", n.weight(8, 32)), n.weight(32))
    scalar = lambda v: n.node("Constant", value=numpy_helper.from_array(np.array(v, np.float32)))
    e = n.node("Add", n.node("Erf", n.node("Div", h, scalar(1.4142135))), scalar(1.0))
    g = n.node("Mul", n.node("Mul", h, e), scalar(0.5))
    return n.model(n.node("Add", n.node("MatMul", g, n.weight(32, 8)), n.weight(8)), 3)


def u_net():
    n = image()
    a = n.block("x", 16, 3)
    b = n.block(n.node("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2]), 32, 16)
    up = n.node("ConvTranspose", b, n.weight(32, 16, 2, 2), n.weight(16), strides=[2, 2])
    return n.model(n.conv(n.block(n.node("Concat", up, a, axis=1), 16, 32), 3, 16, 1, True), 4)


def residual():
    n = image()
    x = n.block("x", 16, 3)
    for _ in range(2):
        x = n.node("Relu", n.node("Add", x, n.norm(n.conv(n.block(x, 16, 16), 16, 16), 16)))
    return n.model(n.head(x, 16))


def depthwise():
    n = image()
    x = n.block("x", 16, 3)
    x = n.block(n.norm(n.conv(n.block(x, 48, 16, 1), 48, 1, group=48), 48), 16, 48, 1)
    return n.model(n.head(x, 16))


def mlp():
    n = Net(["N", 12])
    x = n.node("Relu", n.node("Gemm", "x", n.weight(32, 12), n.weight(32), transB=1))
    x = n.node("Relu", n.node("Gemm", x, n.weight(32, 32), n.weight(32), transB=1))
    return n.model(n.head(x, 32, False))


def run(path_or_model, x):
    data = path_or_model.SerializeToString() if hasattr(path_or_model, "SerializeToString") else str(path_or_model)
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def masked(model, kept):
    """The model with its weights set to zero wherever a channel went."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for t in model.graph.initializer:
        if t.name not in kept or t.data_type != TensorProto.FLOAT:
            continue
        data = numpy_helper.to_array(t).copy()
        for axis, left in kept[t.name].items():
            gone = np.setdiff1d(np.arange(data.shape[int(axis)]), left)
            data[(slice(None),) * int(axis) + (gone,)] = 0
        t.CopyFrom(numpy_helper.from_array(data, t.name))
    return model


def judge(binary, source, folder):
    pruned, kept = folder / "pruned.onnx", folder / "kept.json"
    command = [binary, "prune", source, "-o", pruned, "--ratio", "0.5", "--map", kept, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip()
    report = json.loads(done.stdout)["prune"]
    onnx.checker.check_model(str(pruned), full_check=True)
    original = onnx.load(source)
    dims = [d.dim_value or 3 for d in original.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(0).standard_normal(dims).astype(np.float32)
    want, got = run(masked(original, json.loads(kept.read_text())), x), run(pruned, x)
    error = np.abs(want - got).max() / np.abs(want).max()
    before = sum(layer["before"] for layer in report["layers"] if layer["after"] < layer["before"])
    after = sum(layer["after"] for layer in report["layers"] if layer["after"] < layer["before"])
    if not before:
        return "nothing was pruned"
    if error > ROUNDING:
        return f"it differs from the masked original by {error:.1e}"
    if pruned.stat().st_size >= source.stat().st_size:
        return "it is not smaller"
    macs = 100 * report["macs"][1] / max(report["macs"][0], 1)
    print(f"  {before} -> {after} channels, {macs:.1f}% of MACs, "
          f"{source.stat().st_size} -> {pruned.stat().st_size} bytes, error {error:.1e}")
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=pathlib.Path)
    binary = parser.parse_args().binary
    topologies = [unfused_bn, vgg_flatten, dense_concat, c2f_split, channel_shuffle, lstm, gelu_mlp, u_net, residual,
                  depthwise, mlp]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for topology in topologies:
            raw, simplified = folder / "raw.onnx", folder / "simplified.onnx"
            onnx.save(topology(), raw)
            subprocess.run([binary, "simplify", raw, "-o", simplified], check=True, capture_output=True)
            for source in (raw, simplified):
                print(f"{topology.__name__}, {source.stem}")
                wrong = judge(binary, source, folder)
                if wrong:
                    failed += 1
                    print(f"  FAILED: {wrong}")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
