"""The batch that is found, against the best of all sizes measured fairly; and what threads that spin cost a whole audit.

With two busy processes beside and without: a new search each time, and the throughput in rows a second of every size, taken in
turns of equal length on the same session. "Within 10 %" counts the searches whose size gives at least 0.9 of the best throughput.
The second table is the processor time of whole audits whose sessions spin, do not spin, and decide by themselves.

    python tests/benchmarks/bench_batch.py [--quick] [--models NAME] [--runs N]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from onnxfim.graph.load import load_model
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.hardware import Hardware
from tests.benchmarks._common import ROOT, SAMPLE_MODELS, SHARED_MODELS, arguments, print_table

MODELS = (
    SAMPLE_MODELS / "digits_mlp.onnx",
    SAMPLE_MODELS / "digits_resnet.onnx",
    SAMPLE_MODELS / "digits_vit.onnx",
    SHARED_MODELS / "cifar_resnet20.onnx",
)
SIZES = tuple(2**k for k in range(11))
_TURN = 0.03  # seconds of a size at a time
_LONGEST = 1.0  # seconds of a call, past which larger sizes are left out
_BUSY = "while True: pass"

_AUDIT = """
import resource, sys, time
from dataclasses import replace
import numpy as np
from onnxfim import audit
from onnxfim.auditing import subject
from onnxfim.runtime import forward
model, data, count, spinning = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
if spinning != "chosen":
    plain = subject.hardware_of
    subject.hardware_of = lambda *a, **k: replace(plain(*a, **k), spinning=spinning == "on")
    forward.usable_cores = lambda: 1
arrays = np.load(data)
X = arrays["inputs"][:count]
start, used = time.perf_counter(), time.process_time()
audit(model, X, cache_dir=None)
print(time.process_time() - used, time.perf_counter() - start)
"""


@contextmanager
def beside(count: int) -> Iterator[None]:
    """So many busy processes."""
    busy = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def opened(path: Path) -> tuple[OnnxForward, np.ndarray]:
    """A model's forward, its batch not found yet, and a row for it."""
    file = load_model(path)
    into, out = file.graph.inputs[0], file.graph.outputs[0]
    shape = tuple(int(n) for n in (into.shape or ())[1:])
    forward = OnnxForward(
        path, input_name=into.name, output_name=out.name, shape=shape, dtype=np.dtype(into.dtype), hardware=Hardware(("cpu",))
    )
    return forward, np.random.default_rng(0).random((1, *shape)).astype(into.dtype)


def throughputs(forward: OnnxForward, row: np.ndarray, sizes: Sequence[int], turns: int) -> dict[int, tuple[float, float]]:
    """Rows a second, and a second of the processor, of every size over all its turns; the sizes take turns."""
    seconds: dict[int, list[tuple[float, float]]] = {}
    rows = {n: np.repeat(row, n, axis=0) for n in sizes}
    for turn in range(turns + 1):
        for n in sizes:
            if turn and n not in seconds:
                continue
            start, used, calls = time.perf_counter(), time.process_time(), 0
            while calls == 0 or time.perf_counter() - start < _TURN:
                forward.raw(rows[n])
                calls += 1
            passed, used = time.perf_counter() - start, time.process_time() - used
            if not turn:  # warms up, and tells which sizes are too large
                seconds[n] = []
                if passed / calls > _LONGEST:
                    break
            else:
                seconds[n].append((passed / calls / n, used / calls / n))
    return {
        n: (1 / statistics.median(passed for passed, _ in all_), 1 / statistics.median(used for _, used in all_))
        for n, all_ in seconds.items()
        if all_
    }


def searched(path: Path, busy: int, runs: int, turns: int) -> list[object]:
    """A row of the table."""
    with beside(busy):
        found, spent = [], []
        for _ in range(runs):
            forward, row = opened(path)
            start = time.process_time()
            forward.find_batch(row)
            spent.append(time.process_time() - start)
            found.append(forward)
        quiet = [f for f in found if f.reopened]
        forward = (quiet or found)[-1]
        rates = throughputs(forward, row, sorted({*SIZES, *(f.batch for f in found)}), turns)
    told: list[object] = []
    for k in range(2):
        best = max(rates, key=lambda n: rates[n][k])
        shares = [rates[f.batch][k] / rates[best][k] if f.batch in rates else 0.0 for f in found]
        told += [f"{best}: {rates[best][k]:,.0f}", f"{min(shares):.2f}", f"{sum(share >= 0.9 for share in shares)} of {runs}"]
    off = f"{sum(not f.hardware.spinning for f in found)} of {runs}"
    sizes = ", ".join(str(f.batch) for f in found)
    return [path.stem, "busy" if busy else "quiet", sizes, *told, off, f"{statistics.median(spent):.2f}"]


def audits(path: Path, data: Path, samples: int, busy: int, repeats: int) -> list[object]:
    """Processor seconds of a whole audit, spinning on, off and as it chooses; interleaved."""
    spent: dict[str, list[tuple[float, float]]] = {"on": [], "off": [], "chosen": []}
    with beside(busy):
        for _ in range(repeats):
            for kind, all_ in spent.items():
                command = [sys.executable, "-c", _AUDIT, str(path), str(data), str(samples), kind]
                said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
                used, passed = map(float, said.stdout.split()[-2:])
                all_.append((used, passed))
    middle = {kind: [statistics.median(column) for column in zip(*all_, strict=True)] for kind, all_ in spent.items()}
    figures = [f"{middle[kind][k]:.2f}" for k in range(2) for kind in spent]
    return [path.stem, "busy" if busy else "quiet", *figures]


def main() -> None:
    given = arguments(__doc__, ("--runs", {"type": int, "default": 10}), ("--no-audits", {"action": "store_true"}))
    runs, turns = (2, 2) if given.quick else (given.runs, 25)
    models = [path for path in MODELS if path.exists() and given.models in path.stem][: 1 if given.quick else None]
    kinds = (f"{what}{of}" for of in ("", ", processor") for what in ("best: rows/s", "least share", "within 10 %"))
    head = ["model", "cores", "found", *kinds, "spinning off", "processor s of a search"]
    loads = (2,) if given.quick else (2, 0)
    print_table(head, (searched(path, busy, runs, turns) for path in models for busy in loads), title="The batch that is found")
    if given.no_audits or given.quick:
        return
    cases = [(SAMPLE_MODELS / "digits_resnet.onnx", SAMPLE_MODELS / "digits.npz", 200)]
    if SHARED_MODELS.exists():
        cases.append((SHARED_MODELS / "cifar_resnet20.onnx", SHARED_MODELS / "data_cifar10_c1.npz", 16))
    print_table(
        ["model", "cores", *(f"{kind}, {what}" for what in ("processor s", "s") for kind in ("on", "off", "chosen"))],
        (audits(*case, busy, 3) for case in cases for busy in loads),
        title="Whole audits, by whether threads spin",
    )


if __name__ == "__main__":
    main()
