"""Relative errors of lambda_max through the derivative graph against stored exact values, per model.

Run by hand: ``python tests/benchmarks/bench_exact.py [--quick] [--models TEXT]``.
"""

from __future__ import annotations

import numpy as np
from _common import Case, arguments, have_shared, print_table, sample_cases, shared_cases

from onnxfim.auditing.run import audit
from onnxfim.record.settings import Settings

SAMPLES = 32


def errors(case: Case) -> list[object]:
    assert case.exact is not None
    settings = Settings(samples=SAMPLES, method="gradient", replay=0, temperature=case.exact["temperature"], providers=("cpu",))
    found = audit(case.path, case.inputs, case.labels, settings)
    stored = {r["index"]: r for r in case.exact["samples"]}
    row: list[object] = [case.name, case.exact.get("source", "float64 autograd")]
    for measure in ("lambda_max", "lambda_max_calibrated"):
        truth = np.array([stored[s.index][measure] for s in found.samples])
        got = np.array([getattr(s, measure).value for s in found.samples])
        error = np.abs(got / truth - 1)
        row += [f"{np.median(error):.1e}", f"{error.max():.1e}", f"{(error <= 1e-3).mean():.0%}"]
    return row


if __name__ == "__main__":
    options = arguments(__doc__)
    cases = sample_cases()
    if not options.quick and have_shared():
        cases += [c for c in shared_cases() if c.exact is not None]
    headers = ["model", "stored values are"]
    for kind in ("raw", "calibrated"):
        headers += [f"{kind}: median", "largest", "share ≤ 1e-3"]
    title = f"Relative error of lambda_max, {SAMPLES} samples"
    print_table(headers, (errors(c) for c in cases if options.models in c.name), title=title)
