"""Black-box estimates against exact values, model by model; and quantised files against their float32 originals.

    python tests/benchmarks/bench_accuracy.py [--quick] [--models TEXT] [--part exact|quantised]

First table: audits of the first 32 samples against float64 autograd (all labels given, for the temperature).
Second table: an int8 or float16 file at the step chosen on it, against its float32 original at the same step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from _common import Case, arguments, have_shared, print_table, ratio_of_means, sample_case, sample_cases, shared_cases

import onnxfim
from onnxfim import Audit, Settings
from onnxfim.record.steps import Rung

SAMPLES = 32
#: Quantised file and its float32 original.
TWINS = (
    ("digits_resnet_int8", "digits_resnet"),
    ("digits_resnet_fp16", "digits_resnet"),
    ("cifar_resnet8_qdq_int8", "cifar_resnet8_float"),
    ("kws_dscnn_qdq_int8", "kws_dscnn_float"),
    ("cifar_resnet20_fp16", "cifar_resnet20"),
)


def measures(audit: Audit, field: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values and interval ends of the samples that have one; NaN for the others."""
    estimates = [getattr(s, field) for s in audit.samples]
    columns = [[np.nan if x is None else x for x in (e.value, e.low, e.high)] for e in estimates]
    value, low, high = np.array(columns, float).T
    return value, low, high


def against_exact(case: Case, budget: int, method: str) -> list[Any]:
    """One row of the first table."""
    assert case.exact is not None
    settings = Settings(samples=SAMPLES, providers=("cpu",), budget=budget, method=method, bounds=False)
    audit = onnxfim.audit(case.path, case.inputs, case.labels, settings)
    row: list[Any] = [case.name, audit.run.method, budget]
    covered, off = [], []
    for field in ("lambda_max", "lambda_max_calibrated"):
        truth = np.array([s[field] for s in case.exact["samples"]])
        assert [s["index"] for s in case.exact["samples"]] == [s.index for s in audit.samples]
        value, low, high = measures(audit, field)
        error = value.mean() / truth.mean() - 1
        # The estimates' own noise in the mean, apart from the sampling of the data.
        noise = 1.96 * np.sqrt((((high - value) / 1.96) ** 2).sum()) / len(value) / truth.mean()
        mean = audit.aggregates[field].mean
        inside = mean.low is not None and mean.high is not None and mean.low <= truth.mean() <= mean.high
        good = abs(error) <= 0.05 or inside
        row += [f"{error:+.1%} (±{noise:.1%})", "5 %" if abs(error) <= 0.05 else "own" if good else "**no**"]
        tiny = 1e-9 * truth
        covered.append(float(np.mean((low - tiny <= truth) & (truth <= high + tiny))))
        off.append(int(np.sum(~(np.abs(value / truth - 1) <= 0.2))))
    row += [f"{covered[0]:.0%} / {covered[1]:.0%}", f"{off[0]} / {off[1]}"]
    temperature = audit.run.temperature
    row += [f"{temperature:.2f} / {case.exact['temperature']:.2f}" if temperature else None]
    return [*row, f"{audit.step.step / audit.step.input_std:.0e}", audit.step.scheme, "yes" if audit.step.plateau else "**no**"]


def exact_rows(cases: list[Case], budgets: tuple[int, ...]) -> Iterator[list[Any]]:
    for case in cases:
        if case.exact is None:
            continue
        methods = ("sketch", "exact") if np.prod(case.inputs.shape[1:]) < min(budgets) else ("sketch",)
        for method in methods:
            for budget in budgets if method == "sketch" else budgets[:1]:
                yield against_exact(case, budget, method)


def against_original(case: Case, original: Case, samples: int, budget: int) -> list[Any]:
    """One row of the second table: both files on the same samples, along the same directions, at the same step."""
    settings = Settings(samples=samples, providers=("cpu",), budget=budget, method="sketch", bounds=False)
    ours = onnxfim.audit(case.path, case.inputs, case.labels, settings)
    # As many directions as the quantised file got: the same ones, so that their noise cancels in the ratio.
    rows = {"forward": 1, "central": 2, "dithered": 4}
    step = ours.step
    again = Settings(
        samples=samples, providers=("cpu",), budget=budget // rows[step.scheme] * 2 + 1, method="sketch", step=step.step
    )
    theirs = onnxfim.audit(original.path, original.inputs, original.labels, again)
    a, b = measures(ours, "lambda_max")[0], measures(theirs, "lambda_max")[0]
    known = np.isfinite(a) & np.isfinite(b)
    ratio, low, high = ratio_of_means(a[known], b[known])
    near = [g for g in step.curve if (g.cross is not None or step.scheme != "dithered") and 0.08 < g.step / step.step < 12]
    curve = " ".join(f"{'→' if g.step == step.step else ''}{g.relative_step:.0e}: {_height(g, step.scheme):.3g}" for g in near)
    return [
        case.name, samples, budget, f"{step.step / step.input_std:.0e}", step.scheme, "yes" if step.plateau else "**no**",
        theirs.step.scheme, f"{known.sum()}", f"{ratio:.3f} [{low:.2f}, {high:.2f}]", "yes" if abs(ratio - 1) <= 0.15 else "**no**",
        f"{np.nanmedian(a[known] / b[known]):.2f}", curve,
    ]  # fmt: skip


def _height(rung: Rung, scheme: str) -> float:
    return (rung.cross if scheme == "dithered" else rung.central) or 0.0


def main() -> None:
    options = arguments(
        __doc__,
        ("--part", {"choices": ["exact", "quantised"]}),
        ("--budgets", {"default": "101,401"}),
        ("--runs", {"default": "32:101,100:801"}),
    )
    sample, shared = sample_cases(), shared_cases() if have_shared() else []
    budgets = (101,) if options.quick else tuple(int(b) for b in options.budgets.split(","))
    if options.part in (None, "exact"):
        cases = [c for c in (sample[:1] if options.quick else [*sample, *shared]) if options.models in c.name]
        headers = (
            "model", "method", "budget", "raw mean (noise)", "within", "calibrated mean (noise)", "within",
            "intervals that cover, raw / cal.", "samples off by > 20 %, raw / cal.", "T / reference",
            "step / std", "scheme", "plateau",
        )  # fmt: skip
        print_table(headers, exact_rows(cases, budgets), title=f"Against exact values, {SAMPLES} samples")
    if options.part in (None, "quantised"):
        known = {c.name: c for c in shared} | {c.name: c for c in (sample_case(n) for pair in TWINS[:2] for n in pair)}
        runs = [(32, 101)] if options.quick else [tuple(map(int, r.split(":"))) for r in options.runs.split(",")]
        pairs = [p for p in (TWINS[:1] if options.quick else TWINS) if p[0] in known and options.models in p[0]]
        headers = (
            "file", "samples", "budget", "step / std", "scheme", "plateau", "original's scheme", "resolved",
            "mean / original's mean [95 %]", "within 15 %", "median ratio", "λ(r) around the step (r / std: value)",
        )  # fmt: skip
        rows = (against_original(known[a], known[b], n, budget) for a, b in pairs for n, budget in runs)
        print_table(headers, rows, title="Quantised files against their originals at the same step")


if __name__ == "__main__":
    main()
