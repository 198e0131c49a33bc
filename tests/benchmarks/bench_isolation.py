"""What a process of its own for ONNX Runtime costs: the same audits with --isolate on and off, in turns; medians.

Wall time is what a person waits for, processor time what is left of it where other work shares the machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks._common import SHARED_MODELS, arguments, have_shared, print_table

CASES = (
    ("cifar_resnet20", "data_cifar10_in", ("--method", "sketch")),
    ("cifar_resnet20", "data_cifar10_in", ()),
    ("cifar_vit_pgd_2_3_16", "data_cifar10_c1", ()),
)


def one(model, data, more, isolate, samples, folder):
    """Wall seconds, processor seconds and the audit's own seconds of one run of the command."""
    report = folder / "audit.json"
    command = [
        sys.executable, "-m", "onnxfim", "audit", str(SHARED_MODELS / f"{model}.onnx"), "--data", str(SHARED_MODELS / f"{data}.npz"),
        "--samples", str(samples), "--provider", "cpu", "--no-cache", "-q", "--isolate", isolate, "-o", f"json={report}", *more,
    ]  # fmt: skip
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    return wall, used.ru_utime + used.ru_stime, json.loads(report.read_text())["run"]["seconds"]


def main():
    asked = arguments(__doc__, ("--repeats", {"type": int, "default": 7}), ("--samples", {"type": int, "default": 64}))
    if not have_shared():
        return
    repeats, samples = (2, 8) if asked.quick else (asked.repeats, asked.samples)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model, data, more in CASES:
            if asked.models not in model:
                continue
            found = {"off": [], "on": []}
            for turn in range(repeats):
                for isolate in ("off", "on") if turn % 2 else ("on", "off"):
                    found[isolate].append(one(model, data, more, isolate, samples, Path(folder)))
            (wall, cpu, own), (wall_on, cpu_on, own_on) = ([median(v) for v in zip(*found[k], strict=True)] for k in ("off", "on"))
            rows.append(
                (f"{model} {' '.join(more)}", f"{own:.2f} s", f"{own_on:.2f} s", f"{wall:.2f} s", f"{wall_on:.2f} s",
                 f"{cpu:.2f} s", f"{cpu_on:.2f} s", f"{(cpu_on - cpu) / cpu:+.1%}", f"{(cpu_on - cpu) / own:+.1%}")
            )  # fmt: skip
    head = ("audit", "audit, off", "on", "wall, off", "on", "processor, off", "on", "of the whole", "of the audit")
    print_table(head, rows, title=f"Isolation: {samples} samples, median of {repeats} runs each")


if __name__ == "__main__":
    main()
