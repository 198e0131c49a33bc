"""How often a wrong temperature makes a calibrated value wrong by more than its interval, and a gate on it decide wrongly.

Of each of ten models 200 random subsets of 64 rows of its data are audited (exact values), the temperature fitted on those rows
alone. The truth is at the temperature of all rows of the model's data: they are the population, so that the error of the truth's own
temperature does not count. Subsets are drawn without replacement.

    python -m tests.benchmarks.bench_temperature
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from onnxfim.record.sample import Estimate, with_temperature_error
from onnxfim.record.statistics import aggregate
from onnxfim.verdict.gates import decide, parse_gate
from tests.benchmarks._common import arguments, have_shared, print_table
from tests.benchmarks._populations import Population, populations
from tests.benchmarks.bench_coverage import STATISTICS
from tests.support.audits import make_audit

MODELS = (
    "digits_mlp", "digits_vit", "digits_resnet", "mnist_mlp2x256_standard", "mnist_mlp2x256_fgsm", "cifar_cnna_sgd", "cifar_cnna_adv",
    "cifar_resnet20", "cifar_resnet8_float", "kws_dscnn_float",
)  # fmt: skip
ROWS = 64
FACTORS = (0.5, 0.8, 0.9, 1.1, 1.25, 2.0)  # of the truth: where thresholds lie
FLOAT32 = 1e-4  # relative error of values by gradients


def gated(truths: dict[str, float], temperature: float) -> Iterator[tuple[str, float]]:
    """Gates around the truth, and the truth of each."""
    for name, truth in truths.items():
        yield from ((f"lambda_max_calibrated.{name} > {truth * f!r}", truth) for f in FACTORS)
    yield from ((f"temperature > {temperature * f!r}", temperature) for f in FACTORS)


def counted(one: Population, subsets: int) -> Counter[str]:
    """What happened on the subsets of one model."""
    everything = np.arange(len(one.z))
    fitted = one.fitted(everything)
    truth = one.calibrated(everything, fitted)[0]
    truths = {name: statistic(truth) for name, statistic in STATISTICS.items()}
    gates = [(parse_gate(text), value) for text, value in gated(truths, fitted.temperature)]
    template = make_audit(1)
    rng = np.random.default_rng(len(one.name))
    seen: Counter[str] = Counter()
    for draw in range(subsets):
        rows = rng.choice(len(one.z), ROWS, replace=False)
        found = one.fitted(rows)
        seen["subsets"] += 1
        if found.temperature is None:
            seen["no temperature"] += 1
            continue
        y, multiples = one.calibrated(rows, found)
        for value, ends, true in zip(y, multiples.T, truth[rows], strict=True):
            exact = Estimate(float(value), float(value) / (1 + FLOAT32), float(value) * (1 + FLOAT32), "exact")
            held = with_temperature_error(exact, tuple(ends))
            seen["values"] += 1
            seen["values off"] += not held.low <= true <= held.high
        group = aggregate(y, y, y, seed=draw, units="", shifted=multiples * y)
        if group.mean.low is not None and group.mean.high is not None:
            seen["means"] += 1
            seen["means off"] += not group.mean.low <= truths["mean"] <= group.mean.high
        audit = replace(template, calibration=found, aggregates={**template.aggregates, "lambda_max_calibrated": group})
        for result, (gate, value) in zip(decide(audit, [g for g, _ in gates]), gates, strict=True):
            seen["gates"] += 1
            seen[result.verdict] += 1
            seen["wrong pass"] += result.verdict == "pass" and gate.violated(value)
            seen["wrong fail"] += result.verdict == "fail" and not gate.violated(value)
    return seen


def table(subsets: int, models: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """A row for each model, and one for all."""
    total: Counter[str] = Counter()
    for one in populations():
        if one.name not in models:
            continue
        seen = counted(one, subsets)
        total += seen
        yield _row(one.name, seen)
    yield _row("all", total)


def _row(name: str, seen: Counter[str]) -> tuple[str, ...]:
    def share(part: str, of: str) -> str:
        return f"{seen[part] / seen[of]:.3f}" if seen[of] else "–"

    return (
        name, share("no temperature", "subsets"), share("values off", "values"), str(seen["means"]), share("means off", "means"),
        share("wrong pass", "gates"), share("wrong fail", "gates"), share("inconclusive", "gates"),
    )  # fmt: skip


def main() -> None:
    options = arguments(__doc__, ("--subsets", {"type": int, "default": 200}))
    have_shared()
    chosen = tuple(m for m in MODELS if options.models in m)
    headers = (
        "model", "no temperature", "values off", "means with an interval", "means off", "wrong pass", "wrong fail",
        "inconclusive (of the gates)",
    )  # fmt: skip
    print_table(headers, table(10 if options.quick else options.subsets, chosen))


if __name__ == "__main__":
    main()
