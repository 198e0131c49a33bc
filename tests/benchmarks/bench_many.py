"""What many samples cost beside their measuring: an audit with and without its cache, and what is made of its result; processor time.

The digits are repeated with a little noise. ``--samples`` says how many; ``--quick`` takes few.
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

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from onnxfim.record.audit import Audit
from onnxfim.report.formats import FORMATS
from onnxfim.verdict.judge import judge
from tests.benchmarks._common import arguments, print_table
from tests.support.places import SAMPLES

NOISE = 0.02  # of a pixel's range


def many_digits(path, count):
    """So many digits in a file, each with noise of its own."""
    with np.load(SAMPLES / "digits.npz") as digits:
        X, y = digits["inputs"], digits["labels"]
    at, rng = np.arange(count) % len(X), np.random.default_rng(0)
    noisy = np.clip(X[at] + rng.normal(0, NOISE, (count, *X.shape[1:])), 0, X.max())
    np.savez(path, inputs=noisy.astype(X.dtype), labels=y[at])


def processor_seconds(*command):
    """Of a process and its children."""
    process = subprocess.Popen([sys.executable, "-m", "onnxfim", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, command
    return used.ru_utime + used.ru_stime


def timed(work, repeats):
    """Median of this process's processor seconds."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return median(found)


def main():
    asked = arguments(__doc__, ("--repeats", {"type": int, "default": 3}), ("--samples", {"type": int, "default": 10_000}))
    repeats, samples = (1, 100) if asked.quick else (asked.repeats, asked.samples)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many_digits(folder / "many.npz", samples)
        command = [
            "audit",
            str(SAMPLES / "digits_mlp.onnx"),
            "--data",
            str(folder / "many.npz"),
            "-q",
            "-o",
            f"json={folder / 'a.json'}",
        ]
        without, kept, again = [], [], []
        for turn in range(repeats):
            cache = ["--cache-dir", str(folder / f"cache{turn}")]
            without.append(processor_seconds(*command, "--no-cache"))
            kept.append(processor_seconds(*command, *cache))
            again.append(processor_seconds(*command, *cache))
        bare = median(without)
        rows += [
            ("audit without a cache", f"{bare:.2f} s"),
            ("… with a cache", f"{median(kept):.2f} s, {median(kept) / bare - 1:+.1%}"),
        ]
        rows.append(("… all of it remembered", f"{median(again):.2f} s"))
        text = (folder / "a.json").read_text()
        audit = Audit.from_json(text)
        rows.append(("json.loads alone", f"{timed(lambda: json.loads(text), repeats):.2f} s"))
        rows.append(("reading the audit", f"{timed(lambda: Audit.from_json(text), repeats):.2f} s"))
        rows.append(("comparing with itself", f"{timed(lambda: judge(audit, baseline=audit, max_regression=0.05), repeats):.2f} s"))
        rows += [(f"writing {n}", f"{timed(lambda f=f: f(audit), repeats):.2f} s") for n, f in FORMATS.items()]
    print_table(("work", "processor time"), rows, title=f"Many samples: digits_mlp, {samples:,} samples, medians of {repeats}")


if __name__ == "__main__":
    main()
