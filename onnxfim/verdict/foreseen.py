"""What can be said of a gate before anything is measured: that so many samples, or such data, cannot decide it."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

from onnxfim.record.measures import QUANTILES, STATISTIC_BY_NAME
from onnxfim.record.statistics import bracketing, fewest_bracketing, wilson
from onnxfim.record.successive_looks import looks, noise_level
from onnxfim.verdict import guarantee_gates, noise_shares, smoothing_gates
from onnxfim.verdict.gates import Gate

_LEAST = {"mean": 2, "geometric_mean": 2}  # samples from which there is an interval at all
_OF_BRACKETS = ("flip_radius_linf", "certified_radius", "certified_radius_linf")
_MOST = 10**9  # samples that are thought of
_OF_LABELS = ("clean_accuracy", "temperature", "lambda_max_calibrated")


@dataclass(frozen=True)
class Planned:
    """What an audit will be made of.

    Attributes:
        samples: Samples that will be audited.
        labelled: Samples with labels, which the accuracy is of; 0 without labels.
        temperature: Whether a temperature is given, so that calibrated values need no labels.
        flips: Whether flips are searched for.
        bracket: Whether distances in both norms are asked for, guaranteed ones among them.
        raw_units: Whether the scale of the raw inputs is known.
        smoothing: Standard deviations of the smoothed classifiers that certificates are asked of.
        certify_budget: Rows that such a certificate rests on.
        noises: Noises under which predictions are tried.
        noise_stable: Probability with which one stays that is called stable.
        noise_budget: Rows of a sample at most, for each of them.
    """

    samples: int
    labelled: int = 0
    temperature: bool = False
    flips: bool = True
    bracket: bool = False
    raw_units: bool = True
    smoothing: tuple[float, ...] = ()
    certify_budget: int = 1000
    noises: tuple[str, ...] = ()
    noise_stable: float = 0.99
    noise_budget: int = 4000


@dataclass(frozen=True)
class Obstacle:
    """Why a gate will be left open; ``never`` where it can neither pass nor fail."""

    never: bool
    message: str


def obstacle(gate: Gate, planned: Planned) -> Obstacle | None:
    """What stands in the way of a gate on an audit that is planned; None where nothing does that can be known beforehand.

    Quantiles are bounded by order statistics (`record.statistics.bracketing`), which so many samples must be able to give; an
    accuracy by Wilson's interval, whose lower end even without an error lies below the threshold where there are few labels.
    """
    if (smoothing := smoothing_gates.read_name(gate.name)) is not None:
        return _of_smoothing(gate, smoothing, planned)
    if guarantee_gates.without_choice(gate.name) in guarantee_gates.NAMES:
        return _of_noise(gate, planned)
    name, _, statistic = gate.name.partition(".")
    why = _missing(name, planned)
    if why is not None:
        return Obstacle(True, f"gate {gate.text!r} cannot be decided: {why}, or drop the gate.")
    if name == "clean_accuracy":
        return _of_accuracy(gate, planned.labelled)
    n = planned.samples
    if statistic in _LEAST and n < _LEAST[statistic]:
        return Obstacle(True, f"gate {gate.text!r} cannot be decided on {n} sample. Give --samples {_LEAST[statistic]} or more.")
    if statistic not in QUANTILES:
        return None
    return _of_quantile(gate, n, STATISTIC_BY_NAME[statistic].label.lower(), QUANTILES[statistic])


def _missing(name: str, planned: Planned) -> str | None:
    if name in _OF_LABELS and not planned.labelled and not (planned.temperature and name != "clean_accuracy"):
        return "there are no labels. Give some (labels in the .npz, --labels, or one folder per class)"
    if name in _OF_BRACKETS and not planned.bracket:
        return "no guaranteed distances are asked for. Add --bracket"
    if name in ("flip_radius", "flip_radius_linf") and not planned.flips:
        return "no flips are searched for (--no-flip). Leave that out"
    if name == "lambda_max_raw_units" and not planned.raw_units:
        return "the scale of the raw inputs is not known. Give --mean and --std, or --input-range"
    return None


def _of_smoothing(gate: Gate, name: smoothing_gates.Name, planned: Planned) -> Obstacle | None:
    """What stands in the way of a gate on a smoothed classifier."""
    why = smoothing_gates.missing(name, planned.smoothing, labelled=planned.labelled > 0)
    if why is not None:
        return Obstacle(True, f"gate {gate.text!r} cannot be decided: {why}, or drop the gate.")
    if name.what == "radius.median":
        return _of_quantile(gate, planned.samples, "median", 0.5)
    if gate.violated(0.0) and (why := smoothing_gates.out_of_reach(name, planned.smoothing, planned.certify_budget)) is not None:
        return Obstacle(False, f"gate {gate.text!r} cannot pass: {why}.")
    return None


def _of_quantile(gate: Gate, n: int, label: str, q: float) -> Obstacle | None:
    (below, above), (least_low, least_high) = bracketing(n, q), fewest_bracketing(q)
    if below is not None and above is not None:
        return None
    upwards = gate.operator.startswith(">")
    other = q != 0.5 and n >= max(fewest_bracketing(0.5))
    instead = f" or more, or gate {gate.name.partition('.')[0]}.median instead" if other else " or more"
    if below is None and above is None:
        needed = max(least_low, least_high)
        have = f"the {label} has no interval below {needed} samples, and there are {n}"
        return Obstacle(True, f"gate {gate.text!r} cannot be decided: {have}. Give --samples {needed}{instead}.")
    # A gate passes on the end that must not reach the threshold, and fails on the other.
    word = "pass" if (above is None) == upwards else "fail"
    end, least = ("upper", least_high) if above is None else ("lower", least_low)
    return Obstacle(
        False,
        f"gate {gate.text!r} cannot {word} on {n} samples: the 95 % interval of the {label} has its {end} end from {least} on. "
        f"Give --samples {least}{instead}.",
    )


def _of_accuracy(gate: Gate, n: int) -> Obstacle | None:
    """Whether even a perfect score would leave a gate such as ``clean_accuracy < 99%`` open."""
    if gate.operator.startswith(">") or gate.threshold >= 1 or not gate.violated(wilson(n, n)[0]):
        return None
    z2 = n * (1 / wilson(n, n)[0] - 1)  # Wilson's lower end of n right of n is n / (n + z²)
    needed = max(math.ceil(z2 * gate.threshold / (1 - gate.threshold)), n + 1)
    while gate.violated(wilson(needed, needed)[0]):
        needed += 1
    return Obstacle(
        False,
        f"gate {gate.text!r} cannot pass on {n} labelled samples: were all of them right, the 95 % interval would still begin at "
        f"{math.floor(1000 * wilson(n, n)[0]) / 10:g} %. Give {needed:,} labelled samples or more, or lower the threshold.",
    )


def _of_noise(gate: Gate, planned: Planned) -> Obstacle | None:
    """Whether so many rows can show a sample to be stable, and so many samples the share of them."""
    why = guarantee_gates.why_no_noise(gate.name, planned.noises)
    if why is not None:
        return Obstacle(True, f"gate {gate.text!r} cannot be decided: {why}, or drop the gate.")
    n, several = planned.samples, len(planned.noises)
    if gate.operator.startswith(">"):
        return None
    if (found := too_few_rows(planned)) is not None:
        return Obstacle(False, f"gate {gate.text!r} cannot pass: {found}")
    if gate.name.endswith("_here") or not gate.violated(noise_shares.population(n, n, n, several)[0]):
        return None
    instead = "gate noise.stable_share_here, which is of these samples alone"
    if gate.threshold >= 1:
        none = f"no number of samples shows that {100 * gate.threshold:g} % of all such samples are stable"
        return Obstacle(False, f"gate {gate.text!r} cannot pass: {none}. Lower the threshold, or {instead}.")
    more = range(n + 1, _MOST)
    needed = more[bisect_left(more, True, key=lambda k: not gate.violated(noise_shares.population(k, k, k, several)[0]))]
    least = math.floor(1000 * noise_shares.population(n, n, n, several)[0]) / 10
    return Obstacle(
        False,
        f"gate {gate.text!r} cannot pass on {n} samples: were all of them stable, the 95 % interval would still begin at {least:g} "
        f"%. Give {needed:,} samples or more, lower the threshold, or {instead}.",
    )


def too_few_rows(planned: Planned) -> str | None:
    """Why no sample can be shown to be stable under noise, with what to do; None where it can, or where there is no noise."""
    n, share = planned.samples, planned.noise_stable
    if not planned.noises or n == 0:
        return None
    level = noise_level(n, len(planned.noises))
    if looks(share, level, planned.noise_budget).soonest is not None:
        return None
    needed = looks(share, level, 10**9).soonest
    return (
        f"{planned.noise_budget:,} rows a sample show none of {n:,} samples to keep its prediction with {100 * share:.6g} %, even "
        f"where no row fails: it takes {needed:,}. Give --noise-budget {needed} or more, or a smaller --noise-stable."
    )


__all__ = ["Obstacle", "Planned", "obstacle", "too_few_rows"]
