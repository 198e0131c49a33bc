"""Suggested gates as a configuration file: each with where its number comes from, and what was refused."""

from __future__ import annotations

from collections.abc import Iterator

from onnxfim import __version__
from onnxfim.record.audit import Audit
from onnxfim.record.foreign_text import visible
from onnxfim.report.gate_words import units_of
from onnxfim.report.numbers import count, known_ends, number, percent
from onnxfim.verdict.suggest import Suggested, suggest


def render_gates(audit: Audit) -> str:
    """Gates that `verdict.suggest` finds in ``audit``, as TOML that ``onnxfim --config`` reads.

    Put it into ``onnxfim.toml``, or give it as ``--config``. Comments hold the value and its interval, the samples and the margin.
    """
    return "\n".join(_lines(audit)) + "\n"


def _lines(audit: Audit) -> Iterator[str]:
    found = suggest(audit)
    yield f"# Gates that onnxfim {__version__} suggests."
    yield f"# Baseline: {_line(audit.model.name)}, sha256 {visible(audit.model.sha256[:12])}."
    yield f"# Data: {count(len(audit.samples), 'sample')} of {_line(audit.data.source)}."
    yield f"# Its verdict: {audit.verdict}."
    for finding in audit.findings:
        if finding.level == "error":
            yield f"# {_line(finding.id)}: {_line(finding.message)}"
    yield "# The baseline passes them all; on other samples of the same kind an unchanged model rarely misses one."
    yield "# Audit as many samples or more: with fewer a gate may stay undecided, and what is undecided fails."
    yield "fail-on = ["
    for gate in found.gates:
        yield f"  # {_origin(gate, units_of(audit, gate.name))}"
        yield f'  "{gate.text}",'
    yield "]"
    if found.refused:
        yield "# Not suggested:"
    for one in found.refused:
        yield f"# {one.name}: {_line(one.why)}."


def _origin(gate: Suggested, units: str) -> str:
    if gate.value is None:
        return f"{gate.why}."
    form = percent if gate.factor is None else number
    ends = (
        f"{form(gate.low)} to {form(gate.high)}"
        if gate.low is not None and gate.high is not None
        else known_ends(gate.low, gate.high)
    )
    margin = "" if gate.factor is None else f"; margin × {number(gate.factor)}"
    value = f"{form(gate.value)} (95 % interval {ends}){' ' + visible(units) if units else ''}"
    return f"It was {value}: {gate.why}{margin}."


def _line(text: str) -> str:
    """Foreign text that stays within its comment."""
    return " ".join(visible(text).split())
