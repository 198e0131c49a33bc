"""Where a model ran, in words: the provider, and which nodes each one was given."""

from __future__ import annotations

from onnxfim.record.audit import Audit
from onnxfim.record.foreign_text import visible
from onnxfim.record.placed import Placed
from onnxfim.report.numbers import count

#: What the counts are, wherever they are shown.
COUNTED = "as ONNX Runtime assigned them when it opened the model; it may fuse or fold some of them afterwards"
_WITHOUT_NODES = {"callable": "the model is a function", "served": "the model was asked at an address"}
_KINDS = 12  # that are named


def where_it_ran(audit: Audit) -> str:
    """The provider; where others were given compute nodes too, with how many of all each has."""
    run = audit.run
    placed = [p for p in run.placement or () if p.computing]
    if len(placed) < 2:
        return run.provider
    here, total = (sum(p.computing for p in some) for some in ([p for p in placed if p.provider == run.provider], placed))
    others = ", ".join(f"{p.computing:,} on {p.provider}" for p in placed if p.provider != run.provider)
    return f"{run.provider} ({here:,} of {total:,} compute nodes; {others})"


def placement_lines(audit: Audit) -> list[tuple[str, str]]:
    """Each provider with its nodes and their kinds; one line that says so where they are not known."""
    run = audit.run
    if run.placement is None:
        why = _WITHOUT_NODES.get(run.provider, "ONNX Runtime did not tell (1.24 and later do)")
        return [("Nodes", f"not known: {why}")]
    if not run.placement:
        return [("Nodes", "none: ONNX Runtime computed the whole graph ahead")]
    return [(visible(p.provider), visible(_nodes(p))) for p in run.placement]


def _nodes(placed: Placed) -> str:
    """``21 nodes: Conv 9, …``, and how many of them compute or copy where they were told apart."""
    parts = [count(placed.nodes, "node")]
    if placed.compute is not None and placed.computing < placed.nodes:
        verb = "computes" if placed.computing < 2 else "compute"
        parts.append(f"{placed.computing or 'none'} of them {verb} on a sample's values")
    if placed.copies:
        parts.append(f"{placed.copies:,} {'copies' if placed.copies == 1 else 'copy'} between devices")
    return f"{', '.join(parts)}: {placed.kinds(_KINDS)}"
