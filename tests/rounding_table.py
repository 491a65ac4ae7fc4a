#!/usr/bin/env python3
"""Weights of 4, 3 and 2 bits beside 8-bit activations: how much each way of rounding keeps, as ONNX Runtime computes it.

usage: rounding_table.py BINARY --shared FOLDER [--bits 4,3,2] [--ways nearest,gptq,adaround,block,distilled]
                         [--minutes N] [--format qlinear]

Quantizes resnet20_cifar10_ts.onnx, calibrated (and learned) on 512 images without labels, and compares it with the original on
the 2,000 test images with shared/tools/ort_check.py. "distilled" is `--rounding block` and then `--recover distill` on the 8,192
training images, without labels. Prints a Markdown table; seconds are of the whole process.
"""
import argparse, json, os, subprocess, sys, tempfile, time

WAYS = {
    "nearest": ["--rounding", "nearest"],
    "gptq": ["--rounding", "gptq"],
    "adaround": ["--rounding", "adaround"],
    "block": ["--rounding", "block"],
    "distilled": ["--rounding", "block", "--recover", "distill", "--flip", "--shift", "2"],
}


def quantize(args, bits, way, target):
    shared = args.shared
    data = lambda name: os.path.join(shared, "data", name)
    argv = [args.binary, "quantize", os.path.join(shared, "models", "resnet20_cifar10_ts.onnx"), "-o", target,
            "--weight-bits", str(bits), "--format", args.format, "--data", data("cifar10_calib_512.npz"),
            "--no-validate", "--quiet", *WAYS[way]]
    if way == "distilled":
        argv += ["--minutes", str(args.minutes), "--recover-data", data("cifar10_train_8192.npz")]
    start = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(argv)}\n{done.stderr}")
    return time.perf_counter() - start


def judge(args, target):
    model = os.path.join(args.shared, "models", "resnet20_cifar10_ts.onnx")
    argv = [sys.executable, os.path.join(args.shared, "tools", "ort_check.py"), model, target, "--json",
            "--data", os.path.join(args.shared, "data", "cifar10_test_2000.npz"), "--label", "label"]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(argv)}\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("binary")
    p.add_argument("--shared", required=True)
    p.add_argument("--bits", default="4,3,2")
    p.add_argument("--ways", default=",".join(WAYS))
    p.add_argument("--minutes", type=float, default=5.0)
    p.add_argument("--format", default="qlinear")
    args = p.parse_args()
    print("| bits | rounding | SQNR | same class | top-1 | bytes | seconds |\n|---|---|---|---|---|---|---|")
    for bits in args.bits.split(","):
        for way in args.ways.split(","):
            with tempfile.TemporaryDirectory() as folder:
                target = os.path.join(folder, "out.onnx")
                seconds = quantize(args, bits, way, target)
                report = judge(args, target)
            out = report["logits"]
            print(f"| {bits} | {way} | {out['sqnr_db']:.2f} dB | {100 * out['top1_agreement']:.2f}% | "
                  f"{100 * out['accuracy'][1]:.2f}% | {report['size_bytes'][1]:,} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
