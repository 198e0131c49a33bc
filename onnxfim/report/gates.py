"""An audit's gates as every format reads them; an audit without gates has none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnxfim.report.numbers import visible
from onnxfim.results import Audit, Verdict


@dataclass(frozen=True)
class Gate:
    """One gate: what was asked, how it was decided and why."""

    text: str
    verdict: Verdict
    message: str


def gates(audit: Audit) -> Iterator[Gate]:
    """The gates of an audit, in the order they were given; foreign characters are made visible."""
    for gate in getattr(audit, "gates", ()):
        text = getattr(gate, "text", None) or getattr(gate, "name", "gate")
        yield Gate(visible(str(text)), gate.verdict, visible(str(getattr(gate, "message", "") or "")))
