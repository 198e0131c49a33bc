"""What is guaranteed and found of each sample, as columns of a table of samples; those of what was run alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from onnxfim.record.audit import Audit
from onnxfim.record.guarantees import Norm
from onnxfim.record.sample import SampleResult
from onnxfim.report.guarantee_figures import plain_name
from onnxfim.report.guarantee_words import bracket_of, shown_brackets
from onnxfim.verdict.verifier_answers import certified_of

CellValue: TypeAlias = "str | int | float | bool | None"
Reading: TypeAlias = Callable[[SampleResult], CellValue]

_OF_BRACKET = ("low", "low_from", "high", "high_from", "first_order", "fisher")
_OF_NOISE = ("tries", "kept", "low", "high", "decided")
_OF_SMOOTHED = ("prediction", "radius", "p_low", "tries", "kept")


def guarantee_columns(audit: Audit) -> dict[str, list[CellValue]]:
    """Cells by column, in the order of the samples; None where a sample has no such value."""
    return {name: [read(s) for s in audit.samples] for name, read in _readings(audit).items()}


def _readings(audit: Audit) -> dict[str, Reading]:
    found: dict[str, Reading] = {}
    for b in shown_brackets(audit):
        found |= {f"bracket_{b.norm}_{name}": _of_bracket(b.norm, name) for name in _OF_BRACKET}
    for n in audit.noise:
        found |= {f"noise_{plain_name(n.noise)}_{name}": _of_noise(n.noise, name) for name in _OF_NOISE}
    for s in audit.smoothing:
        found |= {f"smoothed_{s.sigma:g}_{name}": _of_smoothed(s.sigma, name) for name in _OF_SMOOTHED}
    if audit.verifier is not None:
        found |= {
            "verified_safe": certified_of,
            "verified_counterexample": lambda s: min((b.distance for b in s.verified if b.distance is not None), default=None),
            "verified_followed": _followed,
        }
    return found


def _of_bracket(norm: Norm, name: str) -> Reading:
    return lambda s: None if (b := bracket_of(s, norm)) is None else getattr(b, name) or _nothing(name)


def _nothing(name: str) -> CellValue:
    """What an end holds where nothing is known: a guarantee of 0, no length, no source."""
    return 0.0 if name == "low" else "" if name.endswith("_from") else None


def _of_noise(noise: str, name: str) -> Reading:
    return lambda s: next((getattr(n, name) for n in s.noise if n.noise == noise and n.tries), None)


def _of_smoothed(sigma: float, name: str) -> Reading:
    return lambda s: next((getattr(x, name) for x in s.smoothed if x.sigma == sigma and x.tries), None)


def _followed(s: SampleResult) -> CellValue:
    """Whether the audited file follows all counterexamples that were tried on it."""
    told = [b.replay for b in s.verified if b.replay is not None]
    return all(told) if told else None
