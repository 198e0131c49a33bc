"""Peak memory of whole audits with default settings against the bare session: models of 5, 100 and 500 MB, and one of many activations.

A file is opened and run by ONNX Runtime alone, on 1 row and on as many as the audit's calls have (`batch`); then `onnxfim audit` runs in
a process of its own, with isolation (two processes) and without. Bytes are those of the whole process tree, sampled every 20 ms:
PSS, which counts a page that is held or mapped several times once, and of that what is private, which no other process and no file
backs: pages of the model's own file can be dropped and read again, and the kernel does so where memory is short. The bound is
1.3 times the bare session plus four batches, each of what the bare session grows by in a call of that many rows after one of one row.

The last table runs the model of 100,000 activations with 300 samples under a limit of 1.5 GB, by a memory control group of its own
(version 1, for root) or else by RLIMIT_DATA. Models are made in a temporary folder: 1.2 GB of disk.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks._common import arguments, print_table

MB = 2**20
LIMIT = 1_500_000_000
BATCH = 256  # rows, of both: the audit's own search ends at 4 to 1024, by chance where the machine is busy
GROUPS = Path("/sys/fs/cgroup/memory")
BARE = """
import re, sys, numpy as np, onnxruntime, onnxfim.auditing.run
held = lambda what: int(re.search(what + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
s = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
s.run(None, {"x": np.zeros((1, 3, 32, 32), np.float32)})
open("/proc/self/clear_refs", "w").write("5")  # the peak is that of what follows
before = held("VmRSS")
s.run(None, {"x": np.zeros((int(sys.argv[2]), 3, 32, 32), np.float32)})
print(1024 * (held("VmHWM") - before))
"""


class Writer:
    """Nodes and weights of a model that is being made."""

    def __init__(self):
        self.rng, self.nodes, self.weights = np.random.default_rng(0), [], []

    def weight(self, *shape, gain=2.0, fan=None):
        array = self.rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(gain / (fan or shape[0])))
        return self.constant(array)

    def constant(self, array):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def __call__(self, op, *inputs, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def save(self, path, z):
        self.nodes.append(helper.make_node("Identity", [z], ["z"]))
        value = helper.make_tensor_value_info
        x, z = value("x", TensorProto.FLOAT, ["N", 3, 32, 32]), value("z", TensorProto.FLOAT, ["N", 10])
        graph = helper.make_graph(self.nodes, "g", [x], [z], self.weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def convolutional(path, *, widths=(16, 16, 16), hidden, layers):
    """Convolutions at the image's size, and large dense layers."""
    w, name, channels = Writer(), "x", 3
    for width in widths:
        kernel = w.weight(width, channels, 3, 3, fan=9 * channels)
        name, channels = w("Relu", w("Conv", name, kernel, pads=[1] * 4)), width
    name, size = w("Flatten", w("AveragePool", name, kernel_shape=[8, 8], strides=[8, 8])), channels * 16
    for _ in range(layers):
        name, size = w("Relu", w("MatMul", name, w.weight(size, hidden))), hidden
    w.save(path, w("MatMul", name, w.weight(size, 10, gain=16)))


def transformer(path, *, width, depth):
    """Attention over 64 patches, with four heads."""
    w, heads = Writer(), 4
    patches = w("Conv", "x", w.weight(width, 3, 4, 4, fan=48, gain=1), kernel_shape=[4, 4], strides=[4, 4])
    x = w("Transpose", w("Reshape", patches, w.constant(np.array([0, width, 64]))), perm=[0, 2, 1])
    ones, zeros = w.constant(np.ones(width, np.float32)), w.constant(np.zeros(width, np.float32))
    split, join = w.constant(np.array([0, 64, heads, width // heads])), w.constant(np.array([0, 64, width]))
    scale = w.constant(np.float32((width // heads) ** -0.5))
    for _ in range(depth):
        y = w("LayerNormalization", x, ones, zeros)
        q, k, v = (w("Reshape", w("MatMul", y, w.weight(width, width, gain=1)), split) for _ in range(3))
        q, k, v = (w("Transpose", a, perm=p) for a, p in ((q, [0, 2, 1, 3]), (k, [0, 2, 3, 1]), (v, [0, 2, 1, 3])))
        a = w("MatMul", w("Softmax", w("Mul", w("MatMul", q, k), scale), axis=-1), v)
        a = w("Reshape", w("Transpose", a, perm=[0, 2, 1, 3]), join)
        x = w("Add", x, w("MatMul", a, w.weight(width, width, gain=0.5)))
        y = w("LayerNormalization", x, ones, zeros)
        y = w("Relu", w("MatMul", y, w.weight(width, 4 * width)))
        x = w("Add", x, w("MatMul", y, w.weight(4 * width, width, gain=0.5)))
    x = w("ReduceMean", w("LayerNormalization", x, ones, zeros), w.constant(np.array([1])), keepdims=0)
    w.save(path, w("MatMul", x, w.weight(width, 10, gain=16)))


MODELS = {
    "dense 5 MB": lambda p: convolutional(p, hidden=1024, layers=2),
    "dense 100 MB": lambda p: convolutional(p, hidden=2896, layers=4),
    "dense 500 MB": lambda p: convolutional(p, hidden=5600, layers=5),
    "transformer 5 MB": lambda p: transformer(p, width=192, depth=3),
    "transformer 100 MB": lambda p: transformer(p, width=512, depth=8),
    "transformer 500 MB": lambda p: transformer(p, width=1024, depth=10),
}


def tree(pid):
    """The process and all that it started."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from tree(int(child))


def held(pid):
    """PSS of a process tree in bytes, and of that the anonymous part."""
    pss = private = 0
    for one in tree(pid):
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        pss += sum(1024 * int(n) for n in re.findall(r"^Pss: +(\d+)", text, re.M))
        private += sum(1024 * int(n) for n in re.findall(r"^Pss_Anon: +(\d+)", text, re.M))
    return pss, private


def measured(command, **options):
    """Largest PSS, largest anonymous part, seconds and exit code of a command."""
    start, most = time.perf_counter(), [0, 0]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    ended = threading.Event()

    def look():
        while not ended.wait(0.02):
            most[:] = map(max, most, held(process.pid))

    looking = threading.Thread(target=look)
    looking.start()
    code = process.wait()
    ended.set()
    looking.join()
    return *most, time.perf_counter() - start, code


def audit_command(model, data, report, *more):
    command = [
        sys.executable,
        "-m",
        "onnxfim",
        "audit",
        str(model),
        "--data",
        str(data),
        "--provider",
        "cpu",
        "--no-cache",
        "-q",
        "--batch",
        str(BATCH),
    ]
    return [*command, "--allow-inconclusive", "-o", f"json={report}", *more]


def compared(name, model, data, report, routes):
    """A row for each route of a model."""
    bare, bare_private, *_ = measured([sys.executable, "-c", BARE, str(model), "1"])
    for route, more in routes.items():
        pss, private, seconds, code = measured(audit_command(model, data, report, *more))
        if code:
            yield name, route, f"exit {code}"
            continue
        run = json.loads(report.read_text())["run"]
        batch = run["times"]["batch"]
        rows = int(subprocess.run([sys.executable, "-c", BARE, str(model), str(batch)], stdout=subprocess.PIPE, check=True).stdout)
        bound = 1.3 * bare + 4 * rows
        yield (
            name, route, f"{model.stat().st_size / MB:.0f}", f"{bare / MB:.0f} ({bare_private / MB:.0f})", batch, f"{rows / MB:.0f}",
            f"{pss / MB:.0f} ({private / MB:.0f})", f"{pss / bare:.2f} ({private / bare_private:.2f})", f"{bound / MB:.0f}",
            "yes" if pss <= bound else f"private part {'yes' if private <= bound else 'no'}", f"{seconds:.0f} s",
        )  # fmt: skip


def limited(folder):
    """The model of 100,000 activations, 300 samples, 1.5 GB: a row."""
    model, data, report = folder / "wide.onnx", folder / "x300.npz", folder / "wide.json"
    convolutional(model, widths=(16, 16, 32, 32), hidden=1024, layers=2)
    np.savez(data, inputs=np.random.default_rng(0).standard_normal((300, 3, 32, 32)).astype(np.float32))
    group = GROUPS / f"onnxfim-bench-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(LIMIT))
        kind = "control group"
    except OSError:
        group, kind = None, "RLIMIT_DATA"

    def enter():
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))
        else:
            resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))

    try:
        pss, private, seconds, code = measured(audit_command(model, data, report), preexec_fn=enter)
        most = "–" if group is None else f"{int((group / 'memory.max_usage_in_bytes').read_text()) / MB:.0f}"
    finally:
        if group is not None:
            time.sleep(0.2)
            group.rmdir()
    found = json.loads(report.read_text()) if report.exists() else None
    method, samples = ("–", "–") if found is None else (found["run"]["method"], len(found["samples"]))
    return kind, code, method, samples, f"{pss / MB:.0f} ({private / MB:.0f})", most, f"{seconds:.0f} s"


def main():
    asked = arguments(
        __doc__,
        ("--samples", {"type": int, "default": 4}),
        ("--route", {"default": "", "help": "only routes whose name holds this text"}),
    )
    routes = {
        "isolated": ("--isolate", "on"),
        "one process": ("--isolate", "off"),
        "without the bound": ("--isolate", "on", "--no-bounds"),
    }
    routes = {name: more for name, more in routes.items() if asked.route in name and (name == "isolated" or not asked.quick)}
    head = (
        "model", "route", "file MB", "bare: PSS (private) MB", "batch", "a batch more", "audit: PSS (private) MB", "ratio", "bound MB",
        "kept", "time",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "x.npz"
        np.savez(data, inputs=np.random.default_rng(0).standard_normal((asked.samples, 3, 32, 32)).astype(np.float32))

        def rows():
            for name, make in MODELS.items():
                if asked.models not in name or (asked.quick and "5 MB" not in name):
                    continue
                model = folder / "model.onnx"
                make(model)
                yield from compared(name, model, data, folder / "audit.json", routes)

        print_table(head, rows(), title=f"Peak memory: default audits of {asked.samples} samples")
        if not asked.quick and asked.models in "100,000 activations":
            head = ("limit of 1.5 GB by", "exit", "method", "samples", "audit: PSS (private) MB", "most in the group, MB", "time")
            print_table(head, [limited(folder)], title="100,000 activations, 300 samples")


if __name__ == "__main__":
    main()
