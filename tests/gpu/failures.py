"""Failures: a hidden card, a library that is missing; messages and exit codes of the command line."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.gpu.lines import ROOT, SAMPLES, Bench


def check(bench: Bench) -> None:
    """The command line where the card is hidden."""
    if bench.provider != "cuda":
        bench.tell("failures of the card", "only on CUDA")
        return
    for name, environment in (
        ("hidden card", {"CUDA_VISIBLE_DEVICES": ""}),
        ("a card that is not there", {"CUDA_VISIBLE_DEVICES": "7"}),
    ):
        for flags, code in (("--require-provider", 2), ("", 0)):
            found = _audit(["--provider", "cuda", *flags.split()], environment)
            said = " ".join((found.stderr or found.stdout).split())[:200]
            bench.hold(f"{name} {flags}: exit", f"{found.returncode}: {said}", str(code), found.returncode == code)


def _audit(flags: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "onnxfim", "audit", str(SAMPLES / "digits_mlp.onnx"), "--data", str(SAMPLES / "digits.npz")]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [*command, "--samples", "70", "--no-cache", *flags], env={**os.environ, "PYTHONPATH": path, **environment}, capture_output=True, text=True,
        check=False, cwd=ROOT,
    )  # fmt: skip
