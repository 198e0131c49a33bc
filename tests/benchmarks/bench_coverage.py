"""How often intervals of statistics over samples hold the population's value: by simulation over real models.

All measured samples of a trained model (up to 500, exact values) are the population. Samples are drawn from it with replacement, the
temperature is fitted anew on each draw, and the audit's own functions make the statistics. What is counted: how often there is an
interval with two ends, how often it holds the population's value (at the temperature of all of its samples), and how often either
end that is given lies on the wrong side.

Flip radii are those that one audit found on up to 200 samples of a model; what must be covered is the statistic of these, not of the
distances to the nearest wrong answers, which they bound. A sample on which no flip was found is part of the population and counts as
larger than all: a statistic that such samples decide has no value to cover, so that the means of such a model are left out.

    python -m tests.benchmarks.bench_coverage
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from onnxfim.record.decision import Aggregates
from onnxfim.record.statistics import aggregate, bracketing
from tests.benchmarks._common import arguments, have_shared, print_table
from tests.benchmarks._populations import Population, flip_radii, originals, populations

SIZES = (16, 32, 64, 200)
LEAST_ROWS = 100  # a population of fewer is none
STATISTICS: dict[str, Callable[[np.ndarray], float]] = {
    "mean": lambda x: float(x.mean()),
    "geometric_mean": lambda x: float(np.exp(np.log(x).mean())),
    "median": lambda x: float(np.median(x)),
    "p95": lambda x: float(np.quantile(x, 0.95)),
}
QUANTILES = {"median": 0.5, "p95": 0.95}


@dataclass
class Tally:
    """Draws, those with an interval of two ends, those of them that hold the truth, and ends on the wrong side of it."""

    draws: int = 0
    given: int = 0
    covered: int = 0
    low_above: int = 0
    high_below: int = 0
    models: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))

    def add(self, model: str, low: float | None, high: float | None, truth: float) -> None:
        """One draw."""
        self.draws += 1
        self.low_above += low is not None and low > truth
        self.high_below += high is not None and high < truth
        if low is not None and high is not None:
            self.given += 1
            self.covered += low <= truth <= high
            self.models[model].append(low <= truth <= high)

    @property
    def worst(self) -> tuple[str, float]:
        """The model on which the interval covers least, of those that have one in a tenth of the draws."""
        rates = [(float(np.mean(v)), m) for m, v in self.models.items() if len(v) >= self.draws / 10 / max(len(self.models), 1)]
        return (min(rates)[1], min(rates)[0]) if rates else ("", float("nan"))


def tallied(found: Aggregates, model: str, truths: dict[str, float], tallies: dict[str, Tally]) -> None:
    """Count the ends that a gate would decide on."""
    for name, truth in truths.items():
        a = getattr(found, name)
        low, high = a.low, a.high
        if name in QUANTILES:
            below, above = bracketing(found.count + found.unfound, QUANTILES[name])
            low, high = (None if below is None else low), (None if above is None else high)
        tallies[name].add(model, low, high, truth)


def flipped(name: str, radii: np.ndarray, n: int, draws: int, tallies: dict[str, Tally]) -> None:
    """Draws of n flip radii; infinite ones were not found."""
    rng = np.random.default_rng([n, len(name)])
    truths = {s: statistic(radii) for s, statistic in STATISTICS.items()}
    for draw in range(draws):
        drawn = rng.choice(radii, n)
        x = drawn[np.isfinite(drawn)]
        found = aggregate(x, x, x, seed=draw, units="", kind="upper bound", noisy=np.zeros(len(x), bool), unfound=n - len(x))
        tallied(found, name, {s: truth for s, truth in truths.items() if np.isfinite(truth)}, tallies)


def simulated(one: Population, n: int, draws: int, raw: dict[str, Tally], calibrated: dict[str, Tally]) -> None:
    """Draws of n samples from one population."""
    everything = np.arange(len(one.z))
    all_fitted = one.fitted(everything)
    truth_raw = one.values(0.0)
    truth = one.calibrated(everything, all_fitted)[0] if all_fitted.temperature else None
    truths_raw = {name: statistic(truth_raw) for name, statistic in STATISTICS.items()}
    truths = {} if truth is None else {name: statistic(truth) for name, statistic in STATISTICS.items()}
    rng = np.random.default_rng([n, len(one.name)])
    for draw in range(draws):
        rows = rng.integers(0, len(one.z), n)
        x = truth_raw[rows]
        tallied(aggregate(x, x, x, seed=draw, units=""), one.name, truths_raw, raw)
        if truth is None:
            continue
        found = one.fitted(rows)
        if found.temperature is None:
            for tally in calibrated.values():
                tally.draws += 1
            continue
        y, multiples = one.calibrated(rows, found)
        tallied(aggregate(y, y, y, seed=draw, units="", shifted=multiples * y), one.name, truths, calibrated)


def table(draws: int, sizes: tuple[int, ...], models: str) -> Iterator[tuple[str, ...]]:
    """Rows of the table: statistic, n, share with two ends, coverage of these, ends on the wrong side, the worst model."""
    found = [p for p in populations(models) if len(p.z) >= LEAST_ROWS]
    flips = {m.name: r for m in originals(models) if (r := flip_radii(m)) is not None and len(r) >= LEAST_ROWS}
    for n in sizes:
        raw, calibrated, radii = ({name: Tally() for name in STATISTICS} for _ in range(3))
        for one in found:
            simulated(one, n, draws, raw, calibrated)
        for name, known in flips.items():
            flipped(name, known, n, draws, radii)
        for kind, tallies in (("raw", raw), ("calibrated", calibrated), ("flip radius", radii)):
            for name, t in tallies.items():
                model, worst = t.worst
                covered = f"{t.covered / t.given:.3f}" if t.given else "–"
                wrong = f"{t.low_above / t.draws:.3f} / {t.high_below / t.draws:.3f}"
                where = f"{worst:.2f} ({model})" if model else "–"
                yield f"{name}, {kind}", str(n), f"{t.given / t.draws:.2f}", covered, wrong, where


def main() -> None:
    options = arguments(__doc__, ("--draws", {"type": int, "default": 200}))
    have_shared()
    sizes = (16, 64) if options.quick else SIZES
    headers = ("statistic", "n", "two ends given", "covers", "low end above / high end below (of all draws)", "worst model")
    print("Flip radii: samples without a flip count as larger than all; means are of models whose samples all have one.")
    print_table(headers, table(20 if options.quick else options.draws, sizes, options.models))


if __name__ == "__main__":
    main()
