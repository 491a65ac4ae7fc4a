#!/usr/bin/env python3
"""The simplify table of the peers, with our columns: each tool as a fresh process on the same file.

usage: peers_table.py SARDONYX [--shared ../shared] [--runs 5] [MODEL.onnx...]

Per model: nodes (bodies included), median whole-process seconds, peak MB, and whether ONNX Runtime gives the outputs of the
original; ours once with --no-validate and once with the check by execution. Then the ratios that count: the fastest of
onnxsim and OnnxSlim over ours, ONNX Runtime's basic level over ours, and our nodes beside the fewest of a valid peer.
Files of IR version 3 must list every initializer among the graph inputs; whoever does not is "invalid".

Needs the packages of ../shared/tools/requirements.txt and the scripts beside it. Exit code 1 where a bound does not hold:
other outputs, an invalid file, more nodes than the best valid peer, or less than 10 times the speed.
"""
import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile

import onnx

DEFAULT_MODELS = [
    "models/resnet20_cifar10_ts",
    "models/ultraface-rfb-320",
    "models/silero_vad_16k_op15",
    "models/light_resnet50",
    "models/light_shufflenet",
    "models/minilm_ts",
    "digits/digits_vit",
]
# What does not take random input: recurrent state, reflection of a whole window.
DATA = {"silero": "silero_feeds"}
VERDICTS = {0: "same", 1: "OTHER OUTPUTS", 2: "invalid", 3: "not executed"}
SPEED = 10


# A child's peak counts what its parent had before it became another program, so a small process starts the tool.
LAUNCH = """
import os, sys, time
null = os.open(os.devnull, os.O_WRONLY)
start = time.perf_counter()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)])
_, status, usage = os.wait4(pid, 0)
print(os.waitstatus_to_exitcode(status), time.perf_counter() - start, usage.ru_maxrss / 1024)
"""


def timed(argv):
    """Exit code, seconds, peak MB (9 or more, the launcher's own)."""
    out = subprocess.run([sys.executable, "-S", "-E", "-c", LAUNCH, *argv], capture_output=True, text=True, check=True).stdout
    code, seconds, megabytes = out.split()
    return int(code), float(seconds), float(megabytes)


def scripts(shared):
    spec = importlib.util.spec_from_file_location("peers_simplify", os.path.join(shared, "tools", "peers_simplify.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def valid(path):
    """Why a file is no valid model, or None. ONNX's checker enforces the rule of IR version 3 too."""
    try:
        onnx.checker.check_model(path)
    except Exception as e:  # the checker and protobuf raise several kinds
        return str(e).strip().splitlines()[0]
    model = onnx.load(path, load_external_data=False)
    if model.ir_version < 4:
        inputs = {v.name for v in model.graph.input}
        missing = [t.name for t in model.graph.initializer if t.name not in inputs]
        if missing:
            return f"IR version {model.ir_version}, and initializer {missing[0]} is no graph input"
    return None


def verdict(shared, before, after):
    why = valid(after)
    if why:
        return "invalid"
    check = os.path.join(shared, "tools", "ort_check.py")
    argv = [sys.executable, check, before, after, "--batch", "2", "--max-rel", "1e-3"]
    for part, data in DATA.items():
        if part in os.path.basename(before):
            argv += ["--data", os.path.join(shared, "data", data), "--samples", "8"]
    return VERDICTS.get(subprocess.run(argv, capture_output=True).returncode, "?")


def rows(peers, shared, binary, model, runs, tmp):
    """Name -> (nodes, seconds, MB, verdict), or None where the tool fails."""
    jobs = {name: [sys.executable, "-c", code] for name, code in peers.TOOLS.items()}
    out = {}
    for name, argv in [*jobs.items(), ("ours", None), ("ours, validated", None)]:
        file = os.path.join(tmp, "out.onnx")
        if argv:
            argv = [*argv, model, file]
        else:
            argv = [binary, "simplify", model, "-o", file, *([] if "validated" in name else ["--no-validate"])]
        results = []
        for _ in range(runs):
            if os.path.exists(file):
                os.remove(file)
            results.append(timed(argv))
        if results[-1][0] or not os.path.exists(file):
            out[name] = None
            continue
        nodes = peers.count(onnx.load(file, load_external_data=False).graph)
        seconds, megabytes = statistics.median(r[1] for r in results), max(r[2] for r in results)
        out[name] = (nodes, seconds, megabytes, verdict(shared, model, file))
    return out


def cell(row):
    if row is None:
        return "fails"
    nodes, seconds, megabytes, said = row
    note = "" if said == "same" else f", {said}"
    return f"{nodes}, {seconds:.3f} s, {megabytes:.0f} MB{note}"


def judge(table):
    """The ratio cells, and what does not hold."""
    ours, broken = table["ours"], []
    if ours is None:
        return ["-", "-", "-"], ["ours fails"]
    good = {n: r for n, r in table.items() if r and "ours" not in n and r[3] == "same"}
    # Whoever fails or writes an invalid file still took its time.
    python = [table[n][1] for n in ("onnxsim", "onnxslim") if table.get(n)]
    speed = min(python) / ours[1] if python else None
    ort = table["ort-basic"][1] / ours[1] if table.get("ort-basic") else None
    fewest = min((r[0] for r in good.values()), default=None)
    for name in ("ours", "ours, validated"):
        if table[name] is None or table[name][3] != "same":
            broken.append(f"{name}: {'fails' if table[name] is None else table[name][3]}")
    if speed is not None and speed < SPEED:
        broken.append(f"only {speed:.1f} times as fast")
    if ort is not None and ort < 1:
        broken.append(f"slower than ONNX Runtime ({ort:.2f})")
    if fewest is not None and ours[0] > fewest:
        broken.append(f"{ours[0]} nodes, the best peer has {fewest}")
    shown = [f"{r:.1f}" if r is not None else "-" for r in (speed, ort)]
    return [*shown, f"{ours[0]} / {fewest if fewest is not None else '-'}"], broken


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("binary")
    p.add_argument("models", nargs="*", default=[])
    p.add_argument("--shared", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "shared"))
    p.add_argument("--runs", type=int, default=5)
    args = p.parse_intermixed_args()
    if not os.path.isdir(os.path.join(args.shared, "tools")):
        print(f"SKIPPED: {args.shared}/tools is absent, and with it the peers' script and the judge")
        return 0
    peers = scripts(args.shared)
    models = args.models or [os.path.join(args.shared, m + ".onnx") for m in DEFAULT_MODELS]
    names = [*peers.TOOLS, "ours", "ours, validated"]
    head = ["model", "before", *names, "fastest of SIM, SLIM / ours", "ORT-basic / ours", "nodes: ours / best valid peer"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    failures = []
    for model in models:
        with tempfile.TemporaryDirectory() as tmp:
            table = rows(peers, args.shared, os.path.abspath(args.binary), model, args.runs, tmp)
        name = os.path.splitext(os.path.basename(model))[0]
        before = peers.count(onnx.load(model, load_external_data=False).graph)
        ratios, broken = judge(table)
        failures += [f"{name}: {b}" for b in broken]
        print(f"| {' | '.join([name, str(before), *(cell(table[n]) for n in names), *ratios])} |", flush=True)
    print("\n".join(["", "Does not hold:", *failures] if failures else ["", "Every bound holds."]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
