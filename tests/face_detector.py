#!/usr/bin/env python3
"""The face detector quantized by us and by ONNX Runtime's own quantizer on the same synthetic images.

usage: face_detector.py SARDONYX [--shared ../shared]

Prints, per setting: relative L2 of both outputs against f32 and the speed against f32, one thread (ort_check.py --latency).
Status 1 where one of ours is less accurate than the best of theirs, or less than 2.5 times as fast as f32.
"""
import argparse, json, logging, os, subprocess, sys, tempfile
import numpy as np
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

ort.set_default_logger_severity(4)
logging.disable(logging.CRITICAL)
IMAGES, LEAST_SPEED = 24, 2.5


def images(rng, n):
    """Smooth random fields in -1..1, as the detector's normalised photographs are."""
    out = []
    for _ in range(n):
        x = np.zeros((3, 240, 320), np.float32)
        for s in (4, 8, 16, 40):
            cells = rng.standard_normal((3, 240 // s, 320 // s)).astype(np.float32)
            x += np.kron(cells, np.ones((1, s, s), np.float32))[:, :240, :320] * (s / 40)
        out.append(np.clip(x / 2, -1, 1))
    return np.stack(out)


class Reader(CalibrationDataReader):
    def __init__(self, data):
        self.feeds = iter([{"input": data[k:k + 1]} for k in range(len(data))])

    def get_next(self):
        return next(self.feeds, None)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("sardonyx"); p.add_argument("--shared", default="../shared")
    args = p.parse_args()
    model = os.path.join(args.shared, "models", "ultraface-rfb-320.onnx")
    check = os.path.join(args.shared, "tools", "ort_check.py")
    if not os.path.exists(model):
        print(f"SKIPPED: {model} is absent"); return
    with tempfile.TemporaryDirectory() as tmp:
        path = lambda name: os.path.join(tmp, name)
        rng = np.random.default_rng(7)
        calib = images(rng, IMAGES)
        np.savez_compressed(path("calib.npz"), input=calib)
        np.savez_compressed(path("test.npz"), input=images(rng, IMAGES))

        def judge(name, file):
            argv = [sys.executable, check, model, file, "--data", path("test.npz"), "--latency", "--json"]
            r = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
            errors = [r[k]["rel_l2"] for k in ("scores", "boxes")]
            print(f"{name:34} relative L2 {errors[0]:.5f} {errors[1]:.5f}  {r['speedup']:.2f} times f32", flush=True)
            return errors, r["speedup"]

        quant_pre_process(model, path("pre.onnx"), skip_symbolic_shape=True)
        theirs = []
        # Per channel in QDQ it writes a model that does not load (the operator set is 9), so that one is left out.
        for fmt, per_channel in (("QOperator", False), ("QOperator", True), ("QDQ", False)):
            quantize_static(path("pre.onnx"), path("theirs.onnx"), Reader(calib), quant_format=QuantFormat[fmt],
                            per_channel=per_channel, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
            theirs.append(judge(f"onnxruntime {fmt}, {'channel' if per_channel else 'tensor'}", path("theirs.onnx"))[0])
        best = np.min(theirs, axis=0)
        short = []
        for options in (["--runtime", "ort"], ["--format", "qdq"]):
            subprocess.run([args.sardonyx, "quantize", model, "-o", path("ours.onnx"), "--data", path("calib.npz"),
                            "--no-validate", *options], check=True, stdout=subprocess.DEVNULL)
            errors, speed = judge("sardonyx " + " ".join(options), path("ours.onnx"))
            if (np.array(errors) > best).any() or speed < LEAST_SPEED:
                short.append(options)
        sys.exit(1 if short else 0)


if __name__ == "__main__":
    main()
