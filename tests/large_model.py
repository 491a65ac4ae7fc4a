"""Simplify a generated model of many gigabytes, and compare time and memory with copying its files.

    python tests/large_model.py --sardonyx target/release/sardonyx --gigabytes 8 --folder /somewhere/with/space

Writes a transformer with external data (twice the gigabytes on disk at most, and deletes all of it), runs `sardonyx
simplify --no-validate` on it, and fails unless
  - the peak resident memory stays below 1 GB,
  - it takes at most twice as long as copying the files and syncing them,
  - every weight is in the result under its name with the same bytes,
  - onnx.checker accepts the result.
Needs Python with numpy and onnx, on Linux.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

ALIGNMENT = 4096
CHUNK = 1 << 24  # elements made, or bytes hashed, at a time
HEADS = 16
SMALL = 1 << 20  # weights below this many bytes may be folded or fused


class Writer:
    """Makes a model whose weights go straight to its data file."""

    def __init__(self, path):
        self.path = path
        self.data = open(str(path) + ".data", "wb")
        self.random = np.random.default_rng(1)
        self.initializers, self.nodes, self.hashes = [], [], {}

    def weight(self, name, *dims):
        count = int(np.prod(dims))
        self.data.seek(-(-self.data.tell() // ALIGNMENT) * ALIGNMENT)
        offset, hasher = self.data.tell(), hashlib.blake2b()
        for start in range(0, count, CHUNK):
            part = self.random.random(min(CHUNK, count - start), dtype=np.float32)
            part -= 0.5
            self.data.write(part.data)
            hasher.update(part.data)
        t = TensorProto(name=name, dims=dims, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
        for key, value in [("location", Path(self.data.name).name), ("offset", offset), ("length", 4 * count)]:
            t.external_data.add(key=key, value=str(value))
        self.initializers.append(t)
        if 4 * count >= SMALL:
            self.hashes[name] = hasher.hexdigest()
        return name

    def small(self, name, value):
        self.initializers.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op, *inputs, **attributes):
        out = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [out], name=f"n{len(self.nodes)}", **attributes))
        return out

    def norm(self, x, name, d):
        centred = self.node("Sub", x, self.node("ReduceMean", x, axes=[-1]))
        variance = self.node("ReduceMean", self.node("Pow", centred, "two"), axes=[-1])
        scaled = self.node("Div", centred, self.node("Sqrt", self.node("Add", variance, "epsilon")))
        scaled = self.node("Mul", scaled, self.weight(f"{name}.weight", d))
        return self.node("Add", scaled, self.weight(f"{name}.bias", d))

    def dense(self, x, name, m, n):
        x = self.node("Identity", x)
        return self.node("Add", self.node("MatMul", x, self.weight(f"{name}.weight", m, n)), self.weight(f"{name}.bias", n))

    def heads(self, x, *order):
        """Splits the heads with a shape that is computed, as exporters do."""
        shape = self.node("Shape", x)
        batch = self.node("Unsqueeze", self.node("Gather", shape, "zero", axis=0), "axis0")
        time = self.node("Unsqueeze", self.node("Gather", shape, "one", axis=0), "axis0")
        shape = self.node("Concat", batch, time, "heads", "minus1", axis=0)
        return self.node("Transpose", self.node("Reshape", x, shape), perm=order)

    def layer(self, x, name, d):
        y = self.norm(x, f"{name}.norm1", d)
        q, k, v = (self.dense(y, f"{name}.{part}", d, d) for part in "qkv")
        q, k, v = self.heads(q, 0, 2, 1, 3), self.heads(k, 0, 2, 3, 1), self.heads(v, 0, 2, 1, 3)
        scores = self.node("Softmax", self.node("Div", self.node("MatMul", q, k), "scale"), axis=-1)
        y = self.node("Transpose", self.node("MatMul", scores, v), perm=[0, 2, 1, 3])
        y = self.node("Reshape", y, "merged")
        x = self.node("Add", x, self.dense(y, f"{name}.out", d, d))
        y = self.dense(self.norm(x, f"{name}.norm2", d), f"{name}.up", d, 4 * d)
        erf = self.node("Add", self.node("Erf", self.node("Div", y, "root2")), "one_f")
        y = self.node("Mul", self.node("Mul", y, erf), "half")
        return self.node("Add", x, self.dense(y, f"{name}.down", 4 * d, d))

    def finish(self, y, d):
        self.data.close()
        self.nodes.append(helper.make_node("Identity", [y], ["y"]))
        info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", "time", d]) for n in "xy"]
        graph = helper.make_graph(self.nodes, "transformer", info[:1], info[1:], self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        self.path.write_bytes(model.SerializeToString())


def generate(path, size):
    d = 4096 if size >= 4e9 else 1024 if size >= 2e8 else 256
    w = Writer(path)
    for name, value in [("zero", 0), ("one", 1), ("axis0", [0]), ("heads", [HEADS]), ("minus1", [-1]), ("merged", [0, 0, d])]:
        w.small(name, np.array(value, np.int64))
    scale = np.sqrt(d / HEADS)
    for name, value in [("two", 2), ("epsilon", 1e-5), ("scale", scale), ("root2", np.sqrt(2)), ("one_f", 1), ("half", 0.5)]:
        w.small(name, np.float32(value))
    y = "x"
    for k in range(max(1, round(size / (12 * d * d * 4)))):
        y = w.layer(y, f"layer{k}", d)
    w.finish(y, d)
    return w.hashes, len(w.nodes)


def sync(folder):
    for path in folder.iterdir():
        with open(path, "rb") as f:
            os.fsync(f.fileno())


def timed_copy(source, target):
    """Seconds for copying the files and syncing them, with the system's own cp."""
    start = time.perf_counter()
    subprocess.run(["cp", "-r", source, target], check=True)
    sync(target)
    return time.perf_counter() - start


# A small process starts the measured one: the peak that the system reports includes that of whoever started it.
LAUNCHER = """
import json, os, sys, time
start = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
seconds = time.perf_counter() - start
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss * 1024, usage.ru_utime, usage.ru_stime]))
"""


def measured(command):
    run = subprocess.run([sys.executable, "-S", "-c", LAUNCHER, *command], stdout=subprocess.PIPE, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def hashes_of(path):
    """Of every big external weight of the model."""
    model = onnx.load(str(path), load_external_data=False)
    found = {}
    for t in model.graph.initializer:
        entries = {e.key: e.value for e in t.external_data}
        if t.data_location != TensorProto.EXTERNAL or int(entries["length"]) < SMALL:
            continue
        hasher, left = hashlib.blake2b(), int(entries["length"])
        with open(path.parent / entries["location"], "rb") as f:
            f.seek(int(entries["offset"]))
            while left > 0:
                part = f.read(min(CHUNK, left))
                hasher.update(part)
                left -= len(part)
                if not part:
                    break
        found[t.name] = hasher.hexdigest()
    return found, len(model.graph.node)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sardonyx", required=True, help="the binary")
    parser.add_argument("--gigabytes", type=float, default=8)
    parser.add_argument("--folder", default=None, help="where to write (default: the temporary folder)")
    parser.add_argument("--options", nargs="*", default=["simplify", "--no-validate"], help="what to run it with")
    args = parser.parse_args()
    size = args.gigabytes * 1e9
    free = shutil.disk_usage(args.folder or tempfile.gettempdir()).free
    if free < 2.1 * size:
        sys.exit(f"{free / 1e9:.1f} GB are free, {2.1 * args.gigabytes:.1f} GB are needed: use --folder or --gigabytes")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        folder = Path(folder)
        (folder / "in").mkdir()
        path, out = folder / "in" / "model.onnx", folder / "out" / "model.onnx"
        hashes, nodes = generate(path, size)
        sync(folder / "in")
        total = sum(p.stat().st_size for p in (folder / "in").iterdir())
        print(f"{total / 1e9:.2f} GB, {nodes} nodes, {len(hashes)} big weights", flush=True)
        copying = timed_copy(folder / "in", folder / "copy")
        shutil.rmtree(folder / "copy")
        out.parent.mkdir()
        command = [shutil.which(args.sardonyx) or args.sardonyx, *args.options, str(path), "-o", str(out)]
        code, seconds, peak, user, system = measured(command)
        if code != 0:
            sys.exit(f"{' '.join(command)} ended with {code}")
        found, after = hashes_of(out)
        wrong = [name for name, h in hashes.items() if found.get(name) != h]
        onnx.checker.check_model(str(out))
        print(f"copy {copying:.1f} s; simplify {seconds:.1f} s ({seconds / copying:.2f} times; {user:.1f} s in user code, "
              f"{system:.1f} s in the system), peak {peak / 1e6:.0f} MB, {after} nodes")
        failures = []
        if wrong:
            failures.append(f"{len(wrong)} weights differ or are absent, {wrong[0]} first")
        if peak >= 1e9:
            failures.append("the peak is not below 1 GB")
        if seconds > 2 * copying:
            failures.append("it takes more than twice as long as copying")
        sys.exit("; ".join(failures) or None)


if __name__ == "__main__":
    main()
