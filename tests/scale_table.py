#!/usr/bin/env python3
"""Simplify chains and wide graphs of 10,000 to 100,000 nodes: how time grows.

usage: scale_table.py SARDONYX [--nodes 10000,20000,40000,100000] [--runs 3]

CPU time of the whole process, the least of the runs, per node. Exit code 1 where a run fails, or where a node of the largest
graph costs more than twice a node of the smallest. Needs Python with onnx.
"""
import argparse
import os
import subprocess
import sys
import tempfile

import onnx
from onnx import TensorProto, helper

WIDTH = 8


def number(name, value):
    return helper.make_tensor(name, TensorProto.FLOAT, [], [value])


def chain(n):
    """One node after another."""
    steps = [("Relu",), ("Add", "one"), ("Identity",), ("Sigmoid",), ("Mul", "half")]
    names = ["x"] + [f"v{k}" for k in range(n - 1)] + ["y"]
    nodes = []
    for k in range(n):
        op, *constants = steps[k % len(steps)]
        nodes.append(helper.make_node(op, [names[k], *constants], [names[k + 1]]))
    return nodes, [number("one", 1.0), number("half", 0.5)], WIDTH


def wide(n):
    """All nodes beside each other, and one that takes them all. Many compute the same."""
    nodes, weights = [], []
    for k in range(n):
        if k % 3 == 0:
            nodes.append(helper.make_node("Identity", ["x"], [f"v{k}"]))
        else:
            nodes.append(helper.make_node("Add", ["x", f"w{k}"], [f"v{k}"]))
            weights.append(number(f"w{k}", float(k % 1000)))
    nodes.append(helper.make_node("Concat", [f"v{k}" for k in range(n)], ["y"], axis=1))
    return nodes, weights, WIDTH * n


def save(path, nodes, weights, width):
    value = lambda name, n: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n])
    graph = helper.make_graph(nodes, "scale", [value("x", WIDTH)], [value("y", width)], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def seconds(command):
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sardonyx")
    parser.add_argument("--nodes", default="10000,20000,40000,100000")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    sizes = sorted(int(n) for n in args.nodes.split(","))
    grows = []
    print("| graph | nodes | after | CPU s | us per node |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        source, target = (os.path.join(folder, name) for name in ("in.onnx", "out.onnx"))
        for make in (chain, wide):
            costs = []
            for n in sizes:
                save(source, *make(n))
                command = [args.sardonyx, "simplify", source, "-o", target, "--no-validate", "--quiet"]
                least = min(seconds(command) for _ in range(args.runs))
                costs.append(least / n)
                after = len(onnx.load(target).graph.node)
                print(f"| {make.__name__} | {n:,} | {after:,} | {least:.2f} | {1e6 * costs[-1]:.1f} |", flush=True)
            if costs[-1] > 2 * costs[0]:
                grows.append(make.__name__)
    if grows:
        print("more than linear:", ", ".join(grows))
    return 1 if grows else 0


if __name__ == "__main__":
    sys.exit(main())
