"""The number in human terms: what a change of the input of a given size does, in lines of plain text, most telling first."""

from __future__ import annotations

from onnxfim.record.audit import Audit
from onnxfim.report.meaning import flip_median
from onnxfim.report.numbers import count, interval, number


def human_lines(audit: Audit) -> tuple[str, ...]:
    """Sentences for the top of every surface (page, terminal, summary, notebook); none where nothing of the kind was measured."""
    found = flip_median(audit)
    if found.value is None:
        return ()
    ends = interval(found.low, found.high)
    return (
        f"A change of {number(found.value)}{f' ({ends})' if ends else ''} (L2) was enough to flip half of "
        f"{count(found.samples, found.of)}.",
    )
