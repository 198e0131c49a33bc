"""What an audit costs: against the same number of bare rows through the same ONNX Runtime session at the same batch.

    python tests/benchmarks/bench_cost.py [--quick] [--models TEXT] [--repeats N]

The black-box audit alone: no gradient, no bound from the weights. On one core, in processor time: whenever an audit tells its progress, as many bare rows
are run in its own session and at its batch; the ratio is the median over the repeats, without the time in which the model is opened and with it. Peak memory is that of
fresh processes that import the same modules and hold the same data. Further: time of ``onnxfim --help`` and of a report of 200 samples.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import scipy.special  # noqa: F401 - imports are in neither ratio, and an audit imports this late
from _common import ROOT, SAMPLE_MODELS, SHARED_MODELS, arguments, print_table

import onnxfim
from onnxfim import Audit, Settings
from onnxfim.auditing import run
from tests.support.residual_nets import residual_net

QUICK = ("digits_resnet", "random_resnet_32")


@dataclass(frozen=True)
class Subject:
    """A model file and how it is audited; ``target`` is the ratio to bare rows that it must keep."""

    name: str
    path: Path
    inputs: np.ndarray
    labels: np.ndarray | None
    settings: Settings
    target: float


def subjects(folder: Path, *, quick: bool) -> Iterator[Subject]:
    """The smallest sample model, a CIFAR net, and nets of random weights at 32² and 224²."""
    digits = np.load(SAMPLE_MODELS / "digits.npz")
    for name in ("digits_mlp", "digits_resnet"):
        yield Subject(
            name, SAMPLE_MODELS / f"{name}.onnx", digits["inputs"], digits["labels"],
            Settings(samples=50 if quick else 200, providers=("cpu",), method="exact", bounds=False), 2.0,
        )  # fmt: skip
    if (SHARED_MODELS / "manifest.json").is_file():
        data = np.load(SHARED_MODELS / "data_cifar10_in.npz")
        settings = Settings(
            samples=8 if quick else 64, providers=("cpu",), method="sketch", bounds=False, budget=51 if quick else 101
        )
        yield Subject("cifar_resnet20", SHARED_MODELS / "cifar_resnet20.onnx", data["inputs"], data["labels"], settings, 1.05)
    else:
        print(f"without cifar_resnet20: the real trained models are not at {SHARED_MODELS}")
    for side, width, blocks, samples in ((32, 32, 3, 24), (224, 32, 2, 10)):
        path = folder / f"random_resnet_{side}.onnx"
        onnx.save(residual_net(side, width, blocks), path)
        X = np.random.default_rng(1).standard_normal((samples, 3, side, side)).astype(np.float32)
        settings = Settings(
            samples=3 if quick else None, providers=("cpu",), method="sketch", bounds=False, budget=25 if quick else 101
        )
        yield Subject(path.stem, path, X, None, settings, 1.05)


class Interleaved:
    """Runs as many bare rows as an audit ran, a sample's at a time, in the audit's own session and at its batch; tells both times.

    Both are processor time of this process on one core, so that neither other work nor threads that spin are in them; what changes
    the speed of the machine meanwhile changes both.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.context: Any = None
        self.rows, self.bare, self.opening = 0, 0.0, 0.0

    def audited(self) -> tuple[Audit, float]:
        """The audit, and its seconds but for opening the model and for the bare rows."""
        start, of = time.process_time(), run.opened

        def opened(*given: Any) -> Any:
            self.context = of(*given)
            self.opening = time.process_time() - start
            return self.context

        run.opened = opened
        try:
            subject = self.subject
            audit = onnxfim.audit(subject.path, subject.inputs, subject.labels, subject.settings, progress=self.catch_up)
        finally:
            run.opened = of
        audited = time.process_time() - start - self.opening - self.bare
        self.catch_up()
        return audit, audited

    def catch_up(self, *_: object) -> None:
        """As many bare rows as the audit ran since this was called last."""
        if self.context is None:
            return
        start = time.process_time()
        session, batch = self.context.subject.forward.session, self.context.forward.batch
        into, out = session.get_inputs()[0].name, session.get_outputs()[0].name
        block = np.repeat(self.subject.inputs[:1], batch, axis=0)
        while self.rows < self.context.meter.passes:
            rows = min(batch, self.context.meter.passes - self.rows)
            session.run([out], {into: block[:rows]})
            self.rows += rows
        self.bare += time.process_time() - start


def cost_row(subject: Subject, repeats: int) -> list[Any]:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        small = replace(subject, settings=replace(subject.settings, samples=2, budget=12))
        Interleaved(small).audited()  # warm: imports
        pairs = [(Interleaved(subject)) for _ in range(repeats)]
        found = [(*pair.audited(), pair) for pair in pairs]
    finally:
        os.sched_setaffinity(0, cores)
    ratios = [seconds / pair.bare for _, seconds, pair in found]
    whole = [(seconds + pair.opening) / pair.bare for _, seconds, pair in found]
    ratio, audit, d = statistics.median(ratios), found[-1][0], int(np.prod(subject.inputs.shape[1:]))
    rate = statistics.median(pair.bare / pair.rows for *_, pair in found)
    overhead = (ratio - 1) * rate * audit.run.evaluations / len(audit.samples)
    return [
        subject.name, f"{d:,}", len(audit.samples), f"{audit.run.evaluations:,}", audit.run.times["batch"], f"{1e3 * overhead:.2f}",
        f"{1e3 * rate:.3f}", f"{ratio:.3f} ({min(ratios):.3f} – {max(ratios):.3f})", f"{statistics.median(whole):.3f}",
        f"≤ {subject.target:.2f}", "yes" if ratio <= subject.target else "**no**",
    ]  # fmt: skip


def passes_rows(*, quick: bool) -> Iterator[list[Any]]:
    """Passes of the ladder and of the whole audit: of files that round, of a smooth one by differences, of a check of gradients."""
    digits = np.load(SAMPLE_MODELS / "digits.npz")
    plain = {"providers": ("cpu",), "bounds": False, "flip": False, "replay": 0}
    cases = [
        (SAMPLE_MODELS / "digits_resnet_int8.onnx", digits, Settings(samples=4, budget=24, **plain)),
        (SAMPLE_MODELS / "digits_resnet_int8.onnx", digits, Settings(samples=32, **plain)),
        (SAMPLE_MODELS / "digits_resnet.onnx", digits, Settings(samples=32, method="sketch", **plain)),
        (SAMPLE_MODELS / "digits_resnet.onnx", digits, Settings(samples=32, **plain)),
    ]
    large = SHARED_MODELS.parent / "models_more" / "imagenet_mobilenetv1_025_qdq_int8.onnx"
    if large.is_file() and not quick:
        cases.append((large, np.load(large.parent / "data_imagenet_mobilenet_nhwc.npz"), Settings(samples=4, budget=24, **plain)))
    for path, data, settings in cases:
        few = slice(settings.samples)  # no others for the temperature
        audit = onnxfim.audit(path, data["inputs"][few], data["labels"][few], settings)
        ladder, whole = audit.step.evaluations, audit.run.evaluations
        yield [path.stem, audit.run.method, settings.samples, settings.budget, f"{ladder:,}", f"{whole:,}", f"{ladder / whole:.0%}"]


_CHILD = Path(__file__).with_name("peak_memory.py")


def peak_bytes(subject: Subject, data: Path, kind: str, batch: int) -> int:
    """Largest resident memory of a fresh process that audits, or only runs rows."""
    samples = min(len(subject.inputs), 12)
    command = [sys.executable, str(_CHILD), str(subject.path), str(data), kind, str(samples), "101", str(batch), str(8 * batch)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=_environment())
    return int(done.stdout.split()[-1]) * 1024


def memory_row(subject: Subject, folder: Path, batch: int, repeats: int) -> list[Any]:
    data = folder / f"{subject.name}.npz"
    labels = {} if subject.labels is None else {"labels": subject.labels}
    np.savez(data, inputs=subject.inputs, **labels)
    bare = statistics.median(peak_bytes(subject, data, "bare", batch) for _ in range(repeats))
    whole = statistics.median(peak_bytes(subject, data, "audit", batch) for _ in range(repeats))
    rows = batch * subject.inputs[0].nbytes
    batches = (whole - bare) / rows
    return [
        subject.name, batch, f"{rows / 2**20:.1f}", f"{bare / 2**20:.0f}", f"{whole / 2**20:.0f}", f"{batches:.1f}", "≤ 4",
        "yes" if batches <= 4 else "**no**",
    ]  # fmt: skip


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def help_seconds(repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "onnxfim", "--help"], check=True, capture_output=True, cwd=ROOT, env=_environment())
        times.append(time.perf_counter() - start)
    return times


def report_seconds(repeats: int) -> list[float]:
    digits = np.load(SAMPLE_MODELS / "digits.npz")
    settings = Settings(samples=200, providers=("cpu",))
    audit = onnxfim.audit(SAMPLE_MODELS / "digits_resnet.onnx", digits["inputs"], digits["labels"], settings)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        onnxfim.render_html(audit)
        times.append(time.perf_counter() - start)
    return times


def seconds_row(what: str, times: list[float], target: float) -> list[Any]:
    median = statistics.median(times)
    return [what, f"{median:.2f} ({min(times):.2f} – {max(times):.2f})", f"< {target}", "yes" if median < target else "**no**"]


def main() -> None:
    options = arguments(__doc__, ("--repeats", {"type": int, "default": 3}))
    repeats = 1 if options.quick else options.repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = [
            s for s in subjects(folder, quick=options.quick) if options.models in s.name and (not options.quick or s.name in QUICK)
        ]
        headers = (
            "model",
            "d",
            "samples",
            "rows",
            "batch",
            "ms added per sample",
            "ms per bare row",
            "audit / bare rows (range)",
            "with opening the model",
            "target",
            "kept",
        )
        print_table(headers, (cost_row(s, repeats) for s in cases), title="Whole audit against bare rows")
        headers = ("model", "batch", "a batch, MiB", "bare, MiB", "audit, MiB", "difference in batches", "target", "kept")
        large = [(s, b) for s in cases for b in ((16,) if s.inputs[0].nbytes > 2**16 else (256,)) if s.inputs[0].nbytes > 2**13]
        if not options.quick:
            print_table(headers, (memory_row(s, folder, b, repeats) for s, b in large), title="Peak memory")
    headers = ("model", "measured by", "samples", "budget", "passes of the ladder", "of the audit", "share")
    print_table(headers, passes_rows(quick=options.quick), title="Passes that choose the step")
    rows = [
        seconds_row("`onnxfim --help`, s", help_seconds(repeats + 2), 0.5),
        seconds_row("report of 200 samples, s", report_seconds(repeats), 1.0),
    ]
    print_table(("what", "median (range)", "target", "kept"), rows, title="Waiting")
    print(f"\nPeak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
