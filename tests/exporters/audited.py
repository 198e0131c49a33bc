"""One file of a recipe, audited as a user would with default settings, and held against its truth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.exporters.recipe import Array

_BARE_SECONDS = 0.7
_BARE_ROWS = 16


@dataclass(frozen=True)
class Outcome:
    """What an audit of a file said, and how far that is from the truth.

    Attributes:
        name, exporter: The recipe's.
        route: How samples were measured: gradient, exact, sketch; "refused" where there is no audit.
        why: Of no gradient, or of the refusal.
        differentiable: Whether there is a truth of this very file.
        error: The largest relative error of λ_max over the samples that have a slope, or None.
        kinked: Samples that stand on a tie: they have one-sided slopes, and an interval that must hold the framework's choice.
        float32: The same of the exporter's framework in float32, the largest of a few draws of its rounding.
        parent: Of the values against those of the float parent, in the median.
        covered: Share of samples whose interval holds the truth.
        family, known_family: The class read, and the one that it has.
        bound: log10 of the Lipschitz bound, or None.
        norm: log10 of the largest ‖J‖₂ over the samples, or None.
        seconds, over_bare: Of the audit, and over those of as many bare forward rows.
    """

    name: str
    exporter: str
    route: str
    why: str = ""
    differentiable: bool = False
    error: float | None = None
    kinked: int = 0
    float32: float | None = None
    parent: float | None = None
    covered: float | None = None
    family: str | None = None
    known_family: str | None = None
    bound: float | None = None
    no_bound: str = ""
    norm: float | None = None
    seconds: float | None = None
    over_bare: float | None = None

    @property
    def exact(self) -> bool:
        """Whether the audit is right to 1e-4, or as right as float32 is."""
        return self.error is not None and self.route != "sketch" and self.error <= max(1e-4, 1.5 * (self.float32 or 0.0))

    @property
    def bound_holds(self) -> bool | None:
        """Whether the bound is above the slopes that were found; None where one of them is not known."""
        return None if self.bound is None or self.norm is None else self.bound >= self.norm - 1e-6

    def as_json(self) -> str:
        """The same in one line."""
        return json.dumps(asdict(self))


def audit(folder: Path, name: str, *, work: Path, samples: int = 16, timeout: float = 300) -> Outcome:
    """Audit and bound one file of the folder that `make` wrote, each by a command in a process of its own."""
    work.mkdir(parents=True, exist_ok=True)
    about = json.loads((folder / f"{name}.json").read_text())
    model, out = folder / f"{name}.onnx", work / f"{name}.json"
    out.unlink(missing_ok=True)
    where = ["--data", str(folder / f"{name}.npz"), "--samples", str(samples), "--no-cache", "--no-bounds", "-o", f"json={out}"]
    said = _run(["audit", str(model), *where, *about["options"]], timeout)
    truth = dict(np.load(folder / f"{name}.truth.npz"))
    found: dict[str, Any] = {
        "name": name, "exporter": about["exporter"], "known_family": about["family"], "differentiable": "lam" in truth,
        **_bounds(model, timeout),
    }  # fmt: skip
    if "norm" in truth and np.isfinite(truth["norm"]).all():
        found["norm"] = float(np.log10(truth["norm"].max()))
    if not out.exists():
        return Outcome(
            route="refused", why=(said.strip().splitlines() or ["nothing was said"])[-1].replace(f"{folder}{os.sep}", ""), **found
        )
    record = json.loads(out.read_text())
    found |= {"seconds": record["run"]["seconds"], "over_bare": _over_bare(model, folder / f"{name}.npz", record)}
    why = "" if record["gradient"]["used"] else record["gradient"]["reason"] or ""
    return Outcome(route=record["run"]["method"], why=why, **found, **against(record, truth))


def against(record: Mapping[str, Any], truth: Mapping[str, Array]) -> dict[str, Any]:
    """How far an audit's values are from the truth."""
    which = [s["index"] for s in record["samples"]]
    sizes = [s["lambda_max"] for s in record["samples"]]
    value, low, high = (np.array([np.nan if e.get(k) is None else e[k] for e in sizes], float) for k in ("value", "low", "high"))
    kinked = np.array([e.get("kind") == "kinked" for e in sizes], bool)
    found: dict[str, Any] = {"kinked": int(kinked.sum())}
    if "lam" in truth:
        lam = truth["lam"][which]
        apart = np.abs(value / lam - 1)[~kinked if not kinked.all() else slice(None)]
        found["error"] = float(apart.max()) if which else None
        found["covered"] = float(np.mean((low <= lam * (1 + 1e-6)) & (high >= lam * (1 - 1e-6))))
        if "own_lam" in truth:
            found["float32"] = float(np.abs(truth["own_lam"] / truth["lam"] - 1).max())
    elif "parent_lam" in truth:
        found["parent"] = float(np.median(np.abs(value / truth["parent_lam"][which] - 1)))
    return found


def _run(arguments: list[str], timeout: float) -> str:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "onnxfim", *arguments], capture_output=True, text=True, timeout=timeout, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no end after {timeout:.0f} s"
    return done.stdout if arguments[0] == "bounds" else done.stdout + done.stderr


def _bounds(model: Path, timeout: float) -> dict[str, Any]:
    try:
        told = json.loads(_run(["bounds", str(model), "--json"], timeout))
    except ValueError:
        return {"no_bound": "no answer"}
    bound = told["bound"]
    return {
        "family": told["architecture"]["family"], "no_bound": "" if bound["available"] else bound["reason"],
        "bound": bound["log10_lipschitz"] if bound["available"] else None,
    }  # fmt: skip


def _over_bare(model: Path, data: Path, record: Mapping[str, Any]) -> float | None:
    """Seconds of the audit over those of as many rows through the bare file; None where it has several inputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        inputs = session.get_inputs()
        if len(inputs) != 1:
            return None
        X = np.load(data)["inputs"]
        rows = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else _BARE_ROWS
        feeds = {inputs[0].name: X[np.arange(rows) % len(X)]}
        session.run(None, feeds)
        start, calls = time.perf_counter(), 0
        while time.perf_counter() - start < _BARE_SECONDS:
            session.run(None, feeds)
            calls += 1
    except Exception:  # the file does not run at this number of rows
        return None
    per_row = (time.perf_counter() - start) / (calls * rows)
    return float(record["run"]["seconds"] / (record["run"]["evaluations"] * per_row))
