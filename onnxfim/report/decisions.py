"""An audit's gates and its comparison with a baseline, as every format reads them; an audit may have none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnxfim.record.audit import Audit
from onnxfim.record.decision import BaselineComparison, GateResult, Outcome
from onnxfim.record.foreign_text import visible
from onnxfim.report.numbers import percent


@dataclass(frozen=True)
class DecidedGate:
    """A gate or the baseline as formats print it: what was asked, how it was decided and why."""

    text: str
    verdict: Outcome
    message: str


def gates(audit: Audit) -> Iterator[DecidedGate]:
    """The gates of an audit in the order they were given, the baseline last; foreign characters are made visible."""
    for gate in audit.gates:
        yield DecidedGate(visible(gate.text), gate.verdict, _message(gate))
    baseline = audit.comparison
    if baseline is not None:
        text = f"{baseline.measure}.mean rose by more than {percent(baseline.max_regression)} against {baseline.baseline}"
        yield DecidedGate(visible(text), baseline.verdict, _message(baseline))


def _message(decided: GateResult | BaselineComparison) -> str:
    """The comparison in unrounded numbers, and what would settle it where it is open."""
    return visible(" ".join(filter(None, (decided.comparison, decided.advice))))
