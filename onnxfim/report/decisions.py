"""An audit's gates and its comparison with a baseline, as every format reads them; an audit may have none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnxfim.record.audit import Audit
from onnxfim.record.decision import Outcome
from onnxfim.record.foreign_text import visible
from onnxfim.report.gate_words import baseline_asked, baseline_words, decided_words, units_of


@dataclass(frozen=True)
class DecidedGate:
    """A gate or the baseline as formats print it: what was asked, how it was decided and why."""

    text: str
    verdict: Outcome
    message: str


def gates(audit: Audit) -> Iterator[DecidedGate]:
    """The gates of an audit in the order they were given, the baseline last; foreign characters are made visible."""
    for gate in audit.gates:
        yield DecidedGate(visible(gate.text), gate.verdict, decided_words(gate, units_of(audit, gate.name)))
    baseline = audit.comparison
    if baseline is not None:
        yield DecidedGate(baseline_asked(baseline), baseline.verdict, baseline_words(baseline))
