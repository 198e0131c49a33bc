"""Failures: a hidden card, cuDNN that is missing, an option that is none; messages and exit codes of the command line."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.gpu.commands import onnxfim
from tests.gpu.lines import SAMPLES, Bench

#: What is amiss, the environment, flags of the command line, the exit code, and a word that must be said.
_CASES: tuple[tuple[str, dict[str, str], tuple[str, ...], int, str], ...] = (
    (
        "card hidden, required",
        {"CUDA_VISIBLE_DEVICES": ""},
        ("--provider", "cuda", "--require-provider"),
        2,
        "no CUDA-capable device",
    ),
    ("card hidden, named", {"CUDA_VISIBLE_DEVICES": ""}, ("--provider", "cuda"), 0, "not obtained"),
    ("card hidden, auto", {"CUDA_VISIBLE_DEVICES": ""}, (), 0, ""),
    ("a card that is not there", {}, ("--provider", "cuda:7", "--require-provider"), 2, "device"),
    ("cuDNN off", {}, ("--provider", "cuda", "--require-provider", "--provider-option", "enable_cudnn=0"), 2, "cuDNN"),
    ("an option that is none", {}, ("--provider", "cuda", "--provider-option", "no_such_option=1"), 2, "no_such_option"),
    ("the card, required", {}, ("--provider", "cuda", "--require-provider"), 0, ""),
)


def check(bench: Bench) -> None:
    """The command line where something is missing."""
    if bench.provider != "cuda":
        bench.tell("failures of the card", "only on CUDA")
        return
    for name, environment, flags, code, word in _CASES:
        found = _audit(flags, environment, bench.folder)
        said = " ".join((found.stderr or found.stdout).split())
        passed = found.returncode == code and word.lower() in said.lower()
        bench.hold(name, f"exit {found.returncode}: {said[:230]}", f"exit {code}" + (f", says {word!r}" if word else ""), passed)


def _audit(flags: tuple[str, ...], environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    model, data, report = SAMPLES / "digits_resnet.onnx", SAMPLES / "digits.npz", folder / "report.html"
    fixed = ("audit", str(model), "--data", str(data), "--samples", "70", "--no-cache", "-o", f"html={report}")
    return onnxfim(*fixed, *flags, environment=environment)
