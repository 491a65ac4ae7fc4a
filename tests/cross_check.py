#!/usr/bin/env python3
"""Judges what `sardonyx quantize` writes with an engine that shares no code with it: ONNX Runtime, through ort_check.py.

usage: cross_check.py SARDONYX [--shared FOLDER] [--only TEXT]

Quantizes real models, and for each result checks that it is valid and loads without a warning, that its drift is within
the project's bounds, that tract (`sardonyx validate`) and ONNX Runtime measure the same drift, and that the bytes do not
depend on the number of threads. One line per check; exit status 1 if one fails. Models that are absent are skipped by
name. --only: just the cases whose name contains TEXT.
"""
import argparse
import json
import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "fixtures" / "digits"
SPELLINGS = {
    "qlinear": [],
    "qdq": ["--format", "qdq"],
    "ort": ["--runtime", "ort"],
    "inputs": ["--format", "qdq", "--scope", "inputs"],
}
# tract and ONNX Runtime round sums in different orders, which may flip a code here and there, and no more.
SQNR_APART = 0.1  # dB
AGREEMENT_APART = 0.2  # percentage points
LOAD = """
import sys, onnxruntime as ort
ort.set_default_logger_severity(4)  # what it says about the machine is not about the model
options = ort.SessionOptions()
options.log_severity_level = 2  # warnings
ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""


@dataclass
class Case:
    """A model, how it is quantized, and what the result must keep."""

    model: Path
    spelling: str
    calib: Path
    test: Path
    label: str | None = None
    min_sqnr: float | None = None
    max_drop: float | None = None
    max_bytes: int | None = None

    @property
    def name(self):
        return f"{self.model.stem} {self.spelling}"

    def missing(self):
        return [str(p) for p in (self.model, self.calib, self.test) if not p.exists()]


@dataclass
class Tally:
    """Counts and prints checks."""

    passed: int = 0
    failed: list = field(default_factory=list)
    skipped: int = 0

    def check(self, case, what, good, figure=""):
        print(f"{'ok  ' if good else 'FAIL'}  {case:<36} {what}: {figure}", flush=True)
        if good:
            self.passed += 1
        else:
            self.failed.append(f"{case}: {what}: {figure}")

    def skip(self, case, why):
        print(f"skip  {case:<36} {why}", flush=True)
        self.skipped += 1


def run(command, **options):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)


def first_line(process):
    text = (process.stderr or process.stdout).strip()
    return text.splitlines()[0][:300] if text else f"status {process.returncode}"


def digits_cases():
    for model in ("resnet", "mobile", "vit", "gru"):
        for exporter in ("", "_dynamo"):
            for spelling in ("qlinear", "qdq", "ort"):
                # ONNX Runtime's own quantizer reaches 31.90 dB on the depthwise model.
                sqnr = 31.9 if model == "mobile" and spelling == "qlinear" else None
                file = DIGITS / f"digits_{model}{exporter}.onnx"
                data = (DIGITS / "digits_calib.npz", DIGITS / "digits_test.npz")
                yield Case(file, spelling, *data, label="label", min_sqnr=sqnr, max_drop=0.4)


def resnet20_cases(shared):
    data = (shared / "data" / "cifar10_calib_512.npz", shared / "data" / "cifar10_test_2000.npz")
    for exporter in ("ts", "dynamo"):
        file = shared / "models" / f"resnet20_cifar10_{exporter}.onnx"
        for spelling in ("qlinear", "qdq"):
            # ONNX Runtime's own portable result has 309,650 bytes.
            largest = 309_650 if (exporter, spelling) == ("ts", "qlinear") else None
            yield Case(file, spelling, *data, label="label", min_sqnr=35.0, max_drop=0.3, max_bytes=largest)
        # onnxsim reaches 37.7 dB where only the inputs of Conv and Gemm are quantized.
        yield Case(file, "inputs", *data, label="label", min_sqnr=37.7, max_drop=0.3)


def face_cases(shared, folder):
    """No images of faces are at hand, so both engines get the same seeded mosaics: what it answers to noise hangs on
    single roundings, and differs by a decibel per sample between ONNX Runtime with and without its optimizations."""
    file = folder / "mosaics.npz"
    tiles = np.random.default_rng(0).uniform(-1, 1, (16, 3, 8, 8)).astype(np.float32)
    np.savez(file, input=tiles.repeat(240 // 8, axis=2).repeat(320 // 8, axis=3))
    for spelling in ("qlinear", "qdq", "ort"):
        yield Case(shared / "models" / "ultraface-rfb-320.onnx", spelling, file, file)


def quantize(binary, case, target, *more):
    command = [binary, "quantize", case.model, "-o", target, "--data", case.calib, "--no-validate", "--json"]
    return run([*command, *SPELLINGS[case.spelling], *more])


def judge(binary, case, shared, folder, tally):
    target = folder / (case.name.replace(" ", "_") + ".onnx")
    done = quantize(binary, case, target)
    if done.returncode != 0:
        tally.check(case.name, "quantizes", False, first_line(done))
        return
    nodes = json.loads(done.stdout)["coverage"]["nodes"]
    coverage = f"{nodes['quantized']} of {nodes['total']} nodes"
    tally.check(case.name, "quantized", nodes["quantized"] > 0, coverage)
    loaded = run([sys.executable, "-c", LOAD, target])
    clean = loaded.returncode == 0 and not loaded.stderr.strip()
    tally.check(case.name, "loads without a warning", clean, "yes" if clean else first_line(loaded))
    if case.max_bytes:
        size = target.stat().st_size
        tally.check(case.name, f"at most {case.max_bytes:,} bytes", size <= case.max_bytes, f"{size:,}")

    data = ["--data", case.test] + (["--label", case.label] if case.label else [])
    ours = run([binary, "validate", case.model, target, "--json", *data])
    theirs = run([sys.executable, shared / "tools" / "ort_check.py", case.model, target, "--json", *data])
    # ort_check.py runs onnx.checker with its full check first.
    tally.check(case.name, "valid and runs in ONNX Runtime", theirs.returncode == 0, first_line(theirs) if theirs.returncode else "yes")
    tally.check(case.name, "runs in tract", ours.returncode == 0, first_line(ours) if ours.returncode else "yes")
    if theirs.returncode == 0:
        bounds(case, json.loads(theirs.stdout), tally)
        if ours.returncode == 0:
            compare(case, json.loads(ours.stdout), json.loads(theirs.stdout), tally)


def outputs(report):
    return {name: r for name, r in report.items() if isinstance(r, dict) and "sqnr_db" in r}


def bounds(case, report, tally):
    for name, r in outputs(report).items():
        if case.min_sqnr is not None:
            tally.check(case.name, f"{name} SQNR at least {case.min_sqnr} dB", r["sqnr_db"] >= case.min_sqnr, f"{r['sqnr_db']:.2f}")
        if case.max_drop is not None:
            drop = r["drop_points"]
            # A figure that is exactly at its bound has rounding of its own.
            tally.check(case.name, f"{name} accuracy drop at most {case.max_drop} points", drop <= case.max_drop + 1e-9, f"{drop:.2f}")


def compare(case, ours, theirs, tally):
    ours = {o["name"]: o for o in ours["outputs"]}
    theirs = outputs(theirs)
    tally.check(case.name, "same outputs compared", ours.keys() == theirs.keys(), ", ".join(sorted(ours)))
    for name in sorted(ours.keys() & theirs.keys()):
        a, b = ours[name], theirs[name]
        sqnr = [math.inf if x is None else x for x in (a["sqnr_db"], b["sqnr_db"])]
        same = sqnr[0] == sqnr[1] or abs(sqnr[0] - sqnr[1]) <= SQNR_APART
        tally.check(case.name, f"{name} SQNR of tract and ONNX Runtime", same, f"{sqnr[0]:.2f}, {sqnr[1]:.2f} dB")
        agreement = (a.get("top1_agreement"), b.get("top1_agreement"))
        if None not in agreement:
            apart = 100 * abs(agreement[0] - agreement[1])
            figure = f"{100 * agreement[0]:.2f}, {100 * agreement[1]:.2f}%"
            tally.check(case.name, f"{name} agreement of tract and ONNX Runtime", apart <= AGREEMENT_APART + 1e-9, figure)


def determinism(binary, case, folder, tally):
    files = []
    for threads in ("1", "2"):
        target = folder / f"threads{threads}.onnx"
        done = quantize(binary, case, target, "--threads", threads)
        if done.returncode != 0:
            tally.check(case.name, f"quantizes on {threads} threads", False, first_line(done))
            return
        files.append(target.read_bytes())
    tally.check(case.name, "same bytes on 1 and 2 threads", files[0] == files[1], f"{len(files[0]):,} and {len(files[1]):,}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sardonyx", type=Path)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    binary, shared, tally = args.sardonyx.resolve(), args.shared.resolve(), Tally()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        cases = [*digits_cases(), *resnet20_cases(shared), *face_cases(shared, folder)]
        cases = [c for c in cases if args.only in c.name]
        for case in cases:
            if missing := case.missing():
                tally.skip(case.name, f"absent: {', '.join(missing)}")
            else:
                judge(binary, case, shared, folder, tally)
        for case in cases:
            # One spelling of each model: the plan, not the spelling, could depend on the order of threads.
            if case.spelling == "qlinear" and not case.missing():
                determinism(binary, case, folder, tally)
    print(f"\n{tally.passed} checks passed, {len(tally.failed)} failed, {tally.skipped} cases skipped")
    for line in tally.failed:
        print(f"FAIL  {line}")
    # Nothing judged is no success.
    sys.exit(1 if tally.failed or not tally.passed else 0)


if __name__ == "__main__":
    main()
