"""A verifier of linear networks, which answers exactly, and the ways in which one can fail: run as a program of its own.

Arguments: a mode, the network, the property, seconds, and the file for the answer or "-".
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

BOUND = re.compile(r"\((<=|>=) (X)(?:_(\d+)|\[([\d,]+)\]) (-?[\d.]+)\)")
RIVAL = re.compile(r"\(>= Y(?:_(\d+)|\[0,(\d+)\]) Y(?:_(\d+)|\[0,(\d+)\])\)")
LONE = re.compile(r"\((<=|>=) Y(?:_0|\[0,0\]) (-?[\d.]+)\)")


def read(text):
    """The box, and the classes or the threshold of a property."""
    ends = {"<=": [], ">=": []}
    for relation, _, _, _, value in BOUND.findall(text):
        ends[relation].append(float(value))
    rivals = [(int(a or b), int(c or d)) for a, b, c, d in RIVAL.findall(text)]
    lone = LONE.search(text)
    return np.array(ends[">="]), np.array(ends["<="]), rivals, lone and (lone[1], float(lone[2]))


def weights(path):
    """W and b of the network's one Gemm."""
    import onnx

    graph = onnx.load(path).graph
    stored = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in graph.initializer}
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1, "one row a call"
    assert [n.op_type for n in graph.node] == ["Flatten", "Gemm"], "nothing but scores"
    return stored["W"], stored["b"]


def solve(onnx_path, text):
    """The point of the box where a rival leads most, and by how much."""
    W, b = weights(onnx_path)
    low, high, rivals, lone = read(text)
    if lone:
        sign = -1.0 if lone[0] == "<=" else 1.0
        ways = [(sign * W[0], sign * (b[0] - lone[1]))]
    else:
        ways = [(W[j] - W[c], b[j] - b[c]) for j, c in rivals]
    points = [np.where(w > 0, high, low) for w, _ in ways]
    leads = [float(w @ p + c) for (w, c), p in zip(ways, points, strict=True)]
    best = int(np.argmax(leads))
    return points[best], leads[best], low, high


def margin(onnx_path, text):
    """By how much the class leads the others in the middle of the box; endless of one output."""
    W, b = weights(onnx_path)
    low, high, rivals, lone = read(text)
    z = W @ (low + high) / 2 + b
    return np.inf if lone else min(z[c] - z[j] for j, c in rivals)


def flat(point):
    """A counterexample as VNN-COMP's rules have it."""
    return "(" + "\n ".join(f"(X_{k} {v!r})" for k, v in enumerate(point.tolist())) + "\n (Y_0 0.0))"


def main():
    mode, onnx_path, vnnlib, _, result = sys.argv[1:6]
    text = Path(vnnlib).read_text(encoding="utf-8")
    if mode == "crash":
        sys.exit("Traceback: it fell over")
    if mode == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    if mode in ("hang", "hang with children"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if mode == "hang with children":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
            Path(os.environ["FAKE_PIDS"]).write_text(f"{os.getpid()} {child.pid}\n", encoding="utf-8")
        time.sleep(600)
    if mode == "garbage":
        sys.stdout.buffer.write(b"\x00\xff I do not know what \x1b]0;evil\x07 this is\n")
        return
    if mode == "floods":
        while True:
            sys.stdout.write("x" * 10**6 + "\n")
    if mode == "hoards":
        kept = []
        while True:
            kept.append(np.ones(2**22))
            time.sleep(0.01)
    if mode == "unknown":
        print("net not supported: I know no Gemm", file=sys.stderr)
        print("unknown")
        return
    if mode == "answers once":  # then it has none to give
        try:
            Path(os.environ["FAKE_ONCE"]).touch(exist_ok=False)
        except FileExistsError:
            sys.exit("GurobiError: no licence was found")
    point, lead, low, high = solve(onnx_path, text)
    if mode == "errs at the boundary" and -0.05 < lead < 0:
        sys.exit("GurobiError: no licence was found")
    wide = lead > 2 * margin(onnx_path, text)  # more than thrice as wide as the largest box that holds nothing
    if mode == "lies where it is wide" and wide:
        lead = -1.0
    if lead >= 0 and (mode == "sees none" or (mode in ("lies where it is wide", "sees what is wide") and not wide)):
        print("unknown")
        return
    if mode == "slow":
        time.sleep(0.3)
    if mode == "lies unsat" or (lead < 0 and mode != "lies sat"):
        answer = "unsat"
    elif mode == "lies sat":  # the middle of the box, where nothing changes
        answer = "sat\n" + flat((low + high) / 2)
    elif mode == "outside":
        answer = "sat\n" + flat(point + 1.0)
    elif mode == "no point":
        answer = "sat"
    elif mode == "standard":
        answer = "\n".join(["sat", f"X float32 [1,{len(point)}]", *map(repr, point.tolist()), "Y float32 [1,1]", "0.0"])
    elif mode == "holds and violated":
        answer = "violated\n" + flat(point)
    else:
        answer = "sat\n" + flat(point)
    if mode == "holds and violated" and answer == "unsat":
        answer = "holds"
    if mode == "colours":
        answer = f"\x1b[1;32m{answer.split()[0]}\x1b[0m" + answer[len(answer.split()[0]) :]
    if result != "-":
        Path(result).write_text(answer + "\n", encoding="utf-8")
        print("reading, thinking, done")
    else:
        print(answer)


if __name__ == "__main__":
    main()
